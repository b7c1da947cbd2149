"""Networks of cells: one genotype to train, or many that share weights to score."""
