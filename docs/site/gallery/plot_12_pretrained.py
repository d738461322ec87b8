"""
A pretrained transformer
========================

MiniLM, fine-tuned to tell spam from other mails, keeps its error without 30 % of its encoder's weights. The
trainings take half an hour; this page reads what they gave (:doc:`/results/minilm-spam/README` has the
command).
"""

from pathlib import Path

import pandas as pd

results = next(at / "results" for at in [Path.cwd(), *Path.cwd().parents] if (at / "results" / "minilm-spam").is_dir())
table = pd.read_csv(results / "minilm-spam" / "table.csv")
table[["density", "parameter_fraction", "error", "gap", "gap_high", "verdict"]].round(3)

# %%
# Pretrained weights go into a recipe as a file, a state dict or a name; all trainings begin at them, and IMP
# rewinds to them:
#
# .. code-block:: python
#
#     schedule = lotto.Linear(warmup="30it")
#     recipe = lotto.Recipe(Net, data, lotto.AdamW(5e-5), pretrained="model.safetensors", schedule=schedule)
#     result = lotto.imp(recipe, densities=[0.7, 0.5, 0.35], rewind_to="0it", controls=["random"])
