"""A decoder's weights under their official names, without a model class of `transformers`.

The native decoder needs only the configuration and the weights. Importing the model classes of `transformers` takes 1.5
seconds and 150 MB of memory, mostly for compilers. So the modules that `chatglm chat` and `serve` use on a CPU must not
import them (tests/test_loading.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from chatglm.models.layout import DecoderMixin, Matrix, layout_of

__all__ = ["BareModel"]


class BareModel(DecoderMixin, nn.Module):
    """Embedding, linear layers, norms and output head of a checkpoint, for the native decoder. It has no forward pass.

    Args:
        config: configuration of a model without a P-tuning prefix.

    The parameters have no memory (device "meta") until `loading` replaces them by those of a folder.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.generation_config: Any = None
        layout = layout_of(config)
        self._embedding, self._head = layout.embedding.name, layout.head.name
        table = layout.embedding
        empty = torch.empty(table.rows, table.columns, device="meta")
        self._put(table.name, nn.Embedding(table.rows, table.columns, _weight=empty, _freeze=True))
        for block in layout.blocks:
            for norm in (block.norm1, block.norm2):
                self._put(norm, _Norm(config.hidden_size, layout.norm_bias))
            for matrix in (block.qkv, block.dense, block.up, block.down):
                self._put(matrix.name, _linear(matrix))
        self._put(layout.final_norm, _Norm(config.hidden_size, layout.norm_bias))
        self._put(layout.head.name, _linear(layout.head))

    def get_input_embeddings(self) -> nn.Module:
        return self.get_submodule(self._embedding)

    def get_output_embeddings(self) -> nn.Module:
        return self.get_submodule(self._head)

    def _put(self, name: str, module: nn.Module) -> None:
        at: nn.Module = self
        *path, last = name.split(".")
        for part in path:
            if part not in dict(at.named_children()):
                at.add_module(part, nn.Module())
            at = at.get_submodule(part)
        at.add_module(last, module)


class _Norm(nn.Module):
    def __init__(self, size: int, bias: bool) -> None:
        super().__init__()
        self.weight = _parameter(size)
        self.bias = _parameter(size) if bias else None


def _linear(matrix: Matrix) -> nn.Linear:
    layer = nn.Linear.__new__(nn.Linear)
    nn.Module.__init__(layer)  # the usual __init__ draws random numbers, which imports the compiler on this device
    layer.in_features, layer.out_features = matrix.columns, matrix.rows
    layer.weight = _parameter(matrix.rows, matrix.columns)
    layer.register_parameter("bias", _parameter(matrix.rows) if matrix.bias else None)
    return layer


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, device="meta"), requires_grad=False)
