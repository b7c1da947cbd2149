"""Search spaces as data: one TOML file each, the name of the file is the name of the space."""
