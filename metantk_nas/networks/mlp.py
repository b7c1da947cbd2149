"""The multi-layer perceptron of the sine benchmark."""

import torch
from torch import Tensor, nn


class Mlp(nn.Module):
    """Two hidden layers of 40 ReLU units and a linear head, as for the sine waves of MAML (arXiv 1703.03400, 5.1).

    Args:
        n_inputs: numbers of one row.
        n_outputs: outputs of the head.
        width: units of each hidden layer.
    """

    def __init__(self, n_inputs: int = 1, n_outputs: int = 1, *, width: int = 40) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.n_features = width
        self.head = nn.Linear(width, n_outputs)
        self.drop_path_prob = 0.0  # of the networks' protocol; there are no paths to drop

    def features(self, rows: Tensor) -> Tensor:
        """Compute features ``[row, n_features]`` of rows ``[row, …]``, whose numbers are laid side by side."""
        return torch.flatten(self.layers(torch.flatten(rows, 1)), 1)

    def forward(self, rows: Tensor) -> Tensor:
        """Compute outputs ``[row, n_outputs]``."""
        found: Tensor = self.head(self.features(rows))
        return found
