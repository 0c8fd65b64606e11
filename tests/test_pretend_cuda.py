"""The pretended CUDA device is as strict as a real one, and changes no value."""

# mypy: disable-error-code="no-untyped-call"
import copy

import numpy as np
import pytest
import torch
from torch import nn

from pretend_cuda import CUDA, pretend_cuda

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real one")


def test_what_is_made_or_moved_there_says_so() -> None:
    with pretend_cuda():
        made, moved = torch.ones(3, device="cuda"), torch.ones(3).to("cuda", torch.float64)
        assert made.device == moved.device == CUDA
        assert made.is_cuda
        assert moved.dtype is torch.float64
        for there in (made.view(3, 1), made + 1, made.new_zeros(5), torch.zeros_like(made), copy.deepcopy(made)):
            assert there.device == CUDA
        assert made.cpu().device.type == made.to("cpu").device.type == torch.zeros_like(made, device="cpu").device.type
        assert nn.Linear(3, 2).cuda().weight.device == CUDA
    assert made.device.type == "cpu"


def test_devices_do_not_mix() -> None:
    with pretend_cuda():
        there, here = torch.ones(3, 3, device="cuda"), torch.ones(3, 3)
        for mixed in (
            lambda: there + here,
            lambda: here @ there,
            lambda: torch.cat([here, there]),
            lambda: torch.where(here > 0, there, there),
            lambda: here[torch.tensor([0], device="cuda")],
            lambda: there.index_add_(0, torch.tensor([0]), there[:1]),
            lambda: here.add_(there),
        ):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        for host_only in (there.numpy, lambda: np.asarray(there)):
            with pytest.raises(TypeError, match="can't convert cuda"):
                host_only()
        # as on a real one: numbers, indices and copies may come from the CPU
        assert (there * torch.tensor(2.0)).device == there[torch.tensor([0, 2])].device == CUDA
        assert here.copy_(there).device.type == "cpu"


def test_gradients_go_back_to_where_a_tensor_was() -> None:
    x, y = torch.arange(3.0, requires_grad=True), torch.arange(3.0)
    with pretend_cuda():
        there = y.cuda().requires_grad_()
        ((x.cuda() * there).sum().cpu() + (there.cpu() * x).sum()).backward()
        assert x.grad is not None
        assert there.grad is not None
        assert (x.grad.device.type, there.grad.device) == ("cpu", CUDA)
        torch.testing.assert_close(x.grad, 2 * y)
        torch.testing.assert_close(there.grad.cpu(), 2 * y)
        with pytest.raises(RuntimeError, match="same device"):
            there.grad + x.grad
