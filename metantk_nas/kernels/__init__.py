"""Neural tangent kernels of any module, and the MetaNTK built from them."""
