from tests.spaces.conftest import data_folder, nas_bench_201_rows

__all__ = ["data_folder", "nas_bench_201_rows"]
