"""Several processes that train as one: what one process with a batch as large would do, they do together."""

import gc
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import recursively_apply
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from .backbones import Timm

LONGEST_WAIT = timedelta(days=7)  # of one process for the others, which may have more, or longer, files to decode


def synchronize_batch_norms(model: nn.Module, device: torch.device) -> None:
    """Let batch norms take their statistics over all processes; names and shapes of the weights stay.

    On GPUs that is torch's `SyncBatchNorm`, which runs nowhere else. Norms of timm's networks stay as they are: each
    process calls them as often as its own clips need, and would wait for one that does not call them again.
    """
    alone = {inner for network in model.modules() if isinstance(network, Timm) for inner in network.modules()}
    for module in [module for module in model.modules() if module not in alone]:
        for name, child in module.named_children():
            if type(child) not in (nn.BatchNorm1d, nn.BatchNorm2d):
                continue
            if device.type == "cuda":
                setattr(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
            else:
                child.__class__ = SharedBatchNorm


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the batches of all processes, on any device: (B, C, ...) -> the same shape."""

    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        others = [axis for axis in range(x.dim()) if axis != 1]
        each_channel = (1, -1, *(1 for _ in others[1:]))
        own = x.to(self.weight.dtype)  # float32 under mixed precision
        sums = _SumOverProcesses.apply(torch.cat([own.sum(others), own.new_tensor([x.numel() / x.shape[1]])]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = own - mean.view(each_channel)  # the variance in a second pass: E[x^2] - E[x]^2 would lose digits
        variance = _SumOverProcesses.apply(centred.square().sum(others)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return (centred * scale.view(each_channel) + self.bias.view(each_channel)).to(x.dtype)


class _SumOverProcesses(torch.autograd.Function):
    """Each process's output depends on every process's input, so the gradient is summed over them too."""

    @staticmethod
    def forward(ctx, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def share_buffers(module: nn.Module, accelerator: Accelerator) -> None:
    """Give every process the first one's buffers, where norms kept statistics of their own share."""
    if accelerator.num_processes > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def make_shardable(model: PreTrainedModel) -> None:
    """Make of a model what Accelerate can shard: by blocks where it has any that can be recomputed, else as a whole."""
    model.to(memory_format=torch.contiguous_format)  # FSDP takes no other
    model.get_input_embeddings = lambda: None  # Accelerate asks, and Transformers raises where there are none
    blocks = (module for module in model.modules() if isinstance(module, GradientCheckpointingLayer))
    model._no_split_modules = {type(block).__name__ for block in blocks}


def whole(states: Any) -> Any:
    """A nested state with its sharded tensors gathered, which every process must ask for; other tensors stay."""
    return recursively_apply(DTensor.full_tensor, states, test_type=lambda tensor: isinstance(tensor, DTensor))


class WholeWeights:
    """The weights of a model, sharded or not, as `AveragedModel.update_parameters` asks for them."""

    def __init__(self, model: nn.Module):
        self.model = model

    def parameters(self) -> Iterator[Tensor]:
        return map(whole, self.model.parameters())

    def buffers(self) -> Iterator[Tensor]:
        return self.model.buffers()  # FSDP shards none


def leave(accelerator: Accelerator) -> None:
    """The end of a run. Its gradients' hooks must be gone before gloo is, which else aborts now and then."""
    accelerator.free_memory()
    gc.collect()
