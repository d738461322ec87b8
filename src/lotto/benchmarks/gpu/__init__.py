"""``lotto bench gpu``: what training takes on a graphics card; `cases` says what is measured, `campaign` does it."""
