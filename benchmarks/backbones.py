"""One row a backbone: size, whether a reload, padding and ONNX leave its answer alone, and its speed.

    python -m benchmarks.backbones

Untrained networks for 14 classes on 40 MFCCs; a clip of 4 s (201 frames) on one thread, median of 20 runs.
"""

import statistics
import tempfile
import time

import torch

from ser_model import SERConfig, SERFeatureExtractor, SERForAudioClassification
from ser_model.backbones import BACKBONES
from ser_model.hub import HubError, export_onnx

NUM_FEATURES, NUM_FRAMES, RUNS = 40, 201, 20


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    print("| backbone | parameters | reloaded equal | padding difference | ONNX difference | ms a 4 s clip |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in [*BACKBONES, "timm/efficientnet_b0"]:
        model = make_model(name)
        clip = torch.randn(1, NUM_FRAMES, NUM_FEATURES)
        logits = model(clip).logits
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            reloaded = SERForAudioClassification.from_pretrained(folder)
        state, again = model.state_dict(), reloaded.state_dict()
        equal = all(torch.equal(state[key], again[key]) for key in state)
        padding = padding_difference(model, clip, logits)
        millions = sum(weight.numel() for weight in model.parameters()) / 1e6
        row = [name, f"{millions:.2f} M", equal, f"{padding:.1e}", onnx_difference(model)]
        print(f"| {' | '.join(map(str, row))} | {milliseconds(model, clip):.1f} |", flush=True)


def make_model(name: str) -> SERForAudioClassification:
    torch.manual_seed(0)
    labels = {index: str(index) for index in range(14)}
    config = SERConfig(backbone=name, num_features=NUM_FEATURES, id2label=labels, invert_dct=False)
    return SERForAudioClassification(config).eval().to(memory_format=torch.channels_last)


def padding_difference(model, clip: torch.Tensor, logits: torch.Tensor) -> float:
    """Largest change of a logit when noise stands behind the clip and longer clips beside it."""
    batch = torch.randn(3, 2 * NUM_FRAMES, NUM_FEATURES)
    batch[0, :NUM_FRAMES] = clip[0]
    lengths = torch.tensor([NUM_FRAMES, 2 * NUM_FRAMES, NUM_FRAMES // 2])
    mask = torch.arange(2 * NUM_FRAMES) < lengths[:, None]
    return float((model(batch, mask).logits[0] - logits[0]).abs().max())


def onnx_difference(model) -> str:
    """Of the logits, from the waveform on; or that this network is refused."""
    noise = 0.1 * torch.randn(2, 32_000)
    extractor = SERFeatureExtractor(n_mfcc=NUM_FEATURES).fit([(noise, torch.tensor([32_000, 32_000]))])
    with tempfile.TemporaryDirectory() as folder:
        try:
            return f"{export_onnx(model, extractor, f'{folder}/model.onnx'):.1e}"
        except HubError as error:
            return f"refused: {error}"


def milliseconds(model, clip: torch.Tensor) -> float:
    times_s = []
    for _ in range(RUNS + 3):
        started_s = time.perf_counter()
        model(clip)
        times_s.append(time.perf_counter() - started_s)
    return 1000 * statistics.median(times_s[3:])  # the first calls choose kernels


if __name__ == "__main__":
    main()
