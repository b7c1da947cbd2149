"""Search spaces as data, and the genotypes in them. Pure Python."""
