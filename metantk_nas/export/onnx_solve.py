"""Cholesky's factorisation and the solution of its systems as ONNX loops: ONNX has no operators for them.

Both are written for matrices of any size; ONNX functions are read from their source, in a subset of Python.
"""
# mypy: ignore-errors
# The bodies are no Python of ours: onnxscript reads them, and its types mean ONNX values.

from onnxscript import FLOAT, INT32, script
from onnxscript import opset18 as op


@script(default_opset=op)
def cholesky_ex(matrix: FLOAT[...]) -> tuple[FLOAT[...], INT32[...]]:
    """Factorise column by column (Cholesky–Crout); the second output is 1 where the matrix is not positive definite."""
    n = op.Squeeze(op.Shape(matrix, start=0, end=1))
    rows = op.Range(0, n, 1)
    factor = op.Sub(matrix, matrix)
    for j in range(n):
        unit = op.CastLike(op.Equal(rows, j), matrix)
        below = op.CastLike(op.GreaterOrEqual(rows, j), matrix)
        column = op.MatMul(matrix, unit) - op.MatMul(factor, op.MatMul(unit, factor))
        pivot = op.Sqrt(op.ReduceSum(column * unit))
        factor = factor + op.Unsqueeze(column / pivot * below, [1]) * op.Unsqueeze(unit, [0])
    failed = op.Cast(op.ReduceMax(op.CastLike(op.IsNaN(factor), matrix), keepdims=0), to=6)
    return factor, failed


@script(default_opset=op)
def cholesky_solve(right: FLOAT[...], factor: FLOAT[...]) -> FLOAT[...]:
    """Solve ``L Lᵀ X = B`` by Gauss–Jordan elimination, which needs no pivots where the matrix is positive definite."""
    matrix = op.MatMul(factor, op.Transpose(factor, perm=[1, 0]))
    size = op.Shape(factor, start=0, end=1)
    n = op.Squeeze(size)
    rows = op.Range(0, n, 1)
    table = op.Concat(matrix, right, axis=1)
    for j in range(n):
        unit = op.CastLike(op.Equal(rows, j), matrix)
        row = op.MatMul(unit, table)
        column = op.Gather(table, j, axis=1)
        pivot = op.ReduceSum(column * unit)
        table = table - op.Unsqueeze((column - unit) / pivot, [1]) * op.Unsqueeze(row, [0])
    return op.Slice(table, size, op.Shape(table, start=1, end=2), [1])
