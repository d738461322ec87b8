"""*Unmasking the Lottery Ticket Hypothesis*: what a mask encodes, told by the error landscape."""
