"""The same promises on a GPU, with the tolerance that its kernels' arithmetic allows (selfcheck.GPU_TOLERANCE)."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from references import respond_reference
from tiny_models import TINY_MODELS, build_tiny, lacking
from writesae.hosts import Host, KernelCall, KernelResult, Tap, load
from writesae.hosts.caches import new_cache, read_state, run_cached, write_state
from writesae.hosts.selfcheck import allowed_error, measure_replay, relative
from writesae.recurrence import replay

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]
CUT = 7
HERE = [name for name in TINY_MODELS if lacking(name) is None]


@pytest.fixture(params=HERE, scope="module")
def host(request: pytest.FixtureRequest) -> Host:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load(nn.Module.cuda(build_tiny(request.param)))


def tokens() -> Tensor:
    return torch.randint(3, 101, (2, 17), generator=torch.Generator().manual_seed(0)).cuda()


def test_replay_reproduces_states_and_outputs(host: Host) -> None:
    for errors in measure_replay(host, tokens(), (11, 1, 1, 4)).values():
        assert max(errors.state, errors.output) <= allowed_error(host)


def test_a_recording_run_has_the_same_bits(host: Host) -> None:
    assert torch.equal(host.logits(tokens(), Tap(after=lambda call, result: result)), host.logits(tokens()))


def test_an_edit_by_response_equals_editing_the_cache(host: Host) -> None:
    layer = next(iter(host.layers))
    state = replay(host.record(tokens()[:, : CUT + 1], [layer])[layer]).final
    edit = torch.randn(state.shape, generator=torch.Generator().manual_seed(3)).cuda() * state.std()
    live = new_cache(host)
    with host.tap():
        run_cached(host, tokens()[:, : CUT + 1], live, 0)
        write_state(host, live, layer, read_state(host, live, layer) + edit)
        edited = run_cached(host, tokens()[:, CUT + 1 :], live, CUT + 1)

    def after(call: KernelCall, result: KernelResult) -> KernelResult:
        if call.layer != layer:
            return result
        response = respond_reference(call.stream.map(lambda x: x[:, CUT:]), edit, at_token=False)
        return result._replace(output=torch.cat([result.output[:, :CUT], result.output[:, CUT:] + response], 1))

    patched = host.logits(tokens(), Tap(after=after))
    assert relative(patched[:, CUT + 1 :], edited) <= 10 * allowed_error(host)
