"""Where named data sets come from: what there is, verified downloads, formats, what is computed."""
