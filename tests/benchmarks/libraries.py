"""What the libraries under us really do: the rows of docs/libraries.md that no other script measures.

pip install torchcam grad-cam img2dataset quantus    # peers; a row is left out where its peer is missing
python tests/benchmarks/libraries.py                 # prints the rows in a minute; ends with 1 where one has changed

Nothing is fetched: search engines and downloads are looked at with an answer made by hand.
"""
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import redirect_stdout
from datetime import date
from importlib.metadata import PackageNotFoundError, requires, version
from io import BytesIO, StringIO
from pathlib import Path

warnings.simplefilter("ignore")

import numpy as np
import torch
from PIL import Image
from torch import nn

from common import table


def fails(f):
    "The name of the error that `f()` ends in, or None."
    try: f()
    except Exception as e: return type(e).__name__


def python(code, **env):
    "What a new Python prints."
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True,
                          env=os.environ | env).stdout.strip()


# Each gives (what was measured, is it still so?) --------------------------------------------------------------------

def vmap_of_recurrent_layers():
    x = torch.randn(5, 2, 3)
    said, right = [], True
    for name in ("RNN", "GRU", "LSTM"):
        nets = [getattr(nn, name)(3, 4) for _ in range(3)]
        params, _ = torch.func.stack_module_state(nets)
        call = lambda p, x: torch.func.functional_call(nets[0], p, (x,))[0]
        forward = fails(lambda: torch.vmap(call, (0, None))(params, x))
        slope = fails(lambda: torch.vmap(torch.func.grad(lambda p, x: call(p, x).sum()), (0, None))(params, x))
        said.append(f"{name}: forward {forward or 'works'}, `grad` {slope or 'works'}")
        right &= forward == "RuntimeError" and slope is None
    return "; ".join(said), right


def ddgs_pages():
    from ddgs import DDGS
    from ddgs.engines import ENGINES
    asked = []
    def search(self, query, page=1, **kwargs):
        asked.append((self.name, page))
        return [self.result_type(title="x", image=f"http://x/{self.name}{page}-{i}.jpg") for i in range(35)]
    engines = ENGINES["images"]
    before = {k: e.search for k, e in engines.items()}
    for e in engines.values(): e.search = search
    try: found = DDGS().images("x", max_results=200)
    finally:
        for k, e in engines.items(): e.search = before[k]
    return (f"200 pictures wanted of {len(engines)} engines with 35 on a page: {len(asked)} page asked for, "
            f"{len(found)} pictures, no word about it", len(asked) == 1 and len(found) == 35)


def stray_bytes():
    import simplejpeg
    b = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(b, "JPEG")
    at = b.getvalue().rindex(b"\xff\xd9")
    odd = b.getvalue()[:at]+bytes(8)+b.getvalue()[at:]
    pillow = np.array(Image.open(BytesIO(odd)))
    strict = fails(lambda: simplejpeg.decode_jpeg(odd))
    same = np.array_equal(simplejpeg.decode_jpeg(odd, strict=False), pillow)
    return (f"eight stray bytes before the end mark: {strict} by default; with `strict=False` its pixels are "
            f"{'equal to' if same else 'not those of'} pillow's", strict == "ValueError" and same)


def torchcam_overlay():
    from torchcam.utils import overlay_mask
    half = Image.fromarray(np.full((8, 8), 0.5, np.float32))
    drawn = np.array(overlay_mask(Image.new("RGB", (8, 8)), half, "gray", alpha=0.))[4, 4, 0]
    return f"a map of 0.5 is drawn as {drawn/255:.2f} of the scale: its square", abs(drawn/255-0.25) < 0.01


def grad_cam_overlay():
    from pytorch_grad_cam.utils.image import show_cam_on_image
    grey = np.full((8, 8, 3), 0.2, np.float32)
    zero, one = np.zeros((8, 8), np.float32), np.zeros((8, 8), np.float32)
    one[0, 0] = 1
    shown = [int(show_cam_on_image(grey, o, use_rgb=True)[4, 4, 2]) for o in (zero, one)]
    plain = int(255*(0.5*grey[4, 4, 2]+0.5*128/255))
    return (f"a grey picture of 0.2 under the blue of a map that is 0 there: {plain} if the two were mixed, "
            f"{shown[0]} as drawn, since the whole is stretched until its brightest point is white",
            shown[0] == 255 and plain < 100)


def png_of_16_bits():
    values = np.linspace(0, 65535, 256).astype(np.uint16)[None]
    b = BytesIO()
    Image.fromarray(values).save(b, "PNG")
    im = Image.open(BytesIO(b.getvalue()))
    white = {m: float((np.array(im.convert(m)).reshape(256, -1)[:, 0] == 255).mean()) for m in ("L", "RGB")}
    return (f"an even ramp from black to white: after `convert('L')` {white['L']:.1%} of it is white, after "
            f"`convert('RGB')` {white['RGB']:.1%}", min(white.values()) > 0.9)


def files_of_webp():
    code = """
import mimetypes; mimetypes.knownfiles = []  # as on a system without them, whoever else asks
from pathlib import Path; import tempfile
from fastai.data.transforms import get_image_files
with tempfile.TemporaryDirectory() as d:
    for o in ("a.jpg", "b.webp", "c.jfif", "d.png"): (Path(d)/o).touch()
    print(" ".join(sorted(o.name for o in get_image_files(d))))"""
    found = python(code)
    later = sys.version_info >= (3, 13)
    return (f"without a list of types from the system, of a.jpg, b.webp, c.jfif, d.png it finds {found}",
            found == ("a.jpg b.webp d.png" if later else "a.jpg d.png"))


def half_precision():
    from fastai.basics import Callback, DataLoaders, Learner
    import fastai.callback.fp16  # adds to_fp16
    assert fastai.callback.fp16
    if torch.cuda.is_available(): return "not measured: this machine has a GPU", True
    class Look(Callback):
        def after_pred(self): seen.add((str(self.pred.dtype), torch.is_autocast_enabled("cpu")))
    seen, x = set(), [(torch.randn(4, 3), torch.randn(4, 1))]*2
    for to in ("to_fp16", "to_bf16"):
        lrnr = getattr(Learner(DataLoaders(x, x), nn.Linear(3, 1), nn.MSELoss(), cbs=Look()), to)()
        with redirect_stdout(StringIO()), lrnr.no_bar(), lrnr.no_logging(): lrnr.fit(1)
    return (f"outputs of a network behind `to_fp16()` and `to_bf16()` on a CPU: "
            f"{', '.join(f'{d}, autocast {a}' for d, a in sorted(seen))}", seen == {("torch.float32", False)})


def exported_language_models():
    import pandas as pd
    from fastai.text.all import AWD_LSTM, TextDataLoaders, language_model_learner, load_learner
    df = pd.DataFrame({"text": ["the cat sat on the mat and the dog sat on the log"]*60})
    dls = TextDataLoaders.from_df(df, is_lm=True, bs=2, seq_len=8, n_workers=0)
    lrnr = language_model_learner(dls, AWD_LSTM, pretrained=False)
    with tempfile.TemporaryDirectory() as d:
        lrnr.path = Path(d)
        lrnr.export("a.pkl")
        back = load_learner(Path(d)/"a.pkl")
        with redirect_stdout(StringIO()), back.no_bar(), back.no_logging():
            found = {o: fails(f) for o, f in dict(predict=lambda: back.predict("the", 2, no_bar=True),
                                                  validate=back.validate, fit=lambda: back.fit(1)).items()}
            preds = fails(lambda: lrnr.get_preds())
    told = ", ".join(f"`{k}` {v or 'passes'}" for k, v in found.items())
    return (f"exported and loaded again, without texts: {told}; "
            f"`get_preds` of the learner with texts: {preds or 'passes'}",
            found["predict"] is None and preds is not None)


def weight_dropout_of_0():
    from fastai.text.models.awdlstm import AWD_LSTM
    def reset(p):
        model = AWD_LSTM(9, 4, 4, 1, weight_p=p)
        model.train()
        model(torch.zeros(1, 2, dtype=torch.long))
        model.eval().reset()
    found = {p: fails(lambda: reset(p)) for p in (0.5, 1e-9, 0.)}
    return ("`reset` of an AWD_LSTM that was trained with a weight dropout of " +
            ", ".join(f"{p:g}: {e or 'works'}" for p, e in found.items()),
            list(found.values()) == [None, None, "TypeError"])


def img2dataset_wants():
    wanted = next(o for o in requires("img2dataset") if o.startswith("pandas"))
    return f"it asks for `{wanted}`, and pip takes pandas back to version 2 for it", "<3" in wanted


def quantus_area():
    import quantus.metrics
    from quantus.helpers.utils import calculate_auc
    error = fails(lambda: calculate_auc(np.ones(3)))
    files = Path(quantus.metrics.__path__[0]).rglob("*.py")
    users = sorted(o.stem for o in files if "calculate_auc(" in o.read_text(encoding="utf-8"))
    return (f"`calculate_auc`, which {', '.join(users)} call, ends in {error}: it calls `np.trapz`, which numpy no "
            "longer has", error == "AttributeError" and len(users) == 4)


def equal_numbers():
    t = torch.zeros(1000)
    top, order = t.topk(5).indices.tolist(), t.sort(descending=True).indices.tolist()
    stable = t.sort(descending=True, stable=True).indices.tolist()
    return (f"of 1000 equal numbers `topk(5)` gives the places {top}; `sort` keeps their order: "
            f"{'yes' if order == stable else 'no'}; `sort(stable=True)`: {'yes' if stable == sorted(stable) else 'no'}",
            top != [0, 1, 2, 3, 4])


def waiting_threads():
    "Processor time of a process with two threads, in that of its main thread, which works alone for most of the time."
    code = """
import time, torch
torch.set_num_threads(2)
x = torch.randn(400_000)
for _ in range(20): x.mul(2)
alone, both = time.thread_time(), time.process_time()
for _ in range(300):
    x.mul(2)
    t = time.thread_time()
    while time.thread_time()-t < 0.001: pass
print((time.process_time()-both)/(time.thread_time()-alone))"""
    if (os.cpu_count() or 1) < 2: return "not measured: one core", True
    as_it_starts = "import os\nfor o in list(os.environ):\n  if o[:4] in ('OMP_', 'GOMP'): del os.environ[o]\n"
    passive = as_it_starts+"os.environ['OMP_WAIT_POLICY'] = 'passive'\n"
    spins, sleeps = (float(python(o+code)) for o in (as_it_starts, passive))
    return (f"a process with two threads, one of them mostly waiting, needs {spins:.2f} times the processor time of "
            f"the other; with `OMP_WAIT_POLICY=passive` {sleeps:.2f} times", spins > sleeps+0.1)


ROWS = {  # name of the row: what measures it, and the packages whose versions count
    "vmap and recurrent layers": (vmap_of_recurrent_layers, "torch"),
    "One engine, one page a call": (ddgs_pages, "ddgs"),
    "The strict mode of simplejpeg": (stray_bytes, "simplejpeg pillow"),
    "torchcam's overlay": (torchcam_overlay, "torchcam"),
    "grad-cam's overlay": (grad_cam_overlay, "grad-cam"),
    "PNG of 16 bits": (png_of_16_bits, "pillow"),
    "Pictures that are not found": (files_of_webp, "fastai"),
    "Half precision without CUDA": (half_precision, "fastai torch"),
    "fastai's export of a language model": (exported_language_models, "fastai"),
    "A weight dropout of 0": (weight_dropout_of_0, "fastai torch"),
    "img2dataset and pandas 3": (img2dataset_wants, "img2dataset"),
    "quantus on numpy 2.4": (quantus_area, "quantus numpy"),
    "Equal numbers": (equal_numbers, "torch"),
    "Threads that wait": (waiting_threads, "torch"),
}


def main():
    names, rows, changed = sys.argv[1:], [], []
    for name, (measure, packages) in ROWS.items():
        if names and not any(o in name for o in names): continue
        try: versions = ", ".join(f"{o} {version(o)}" for o in packages.split())
        except PackageNotFoundError as e:
            print(f"left out, {e.name} is not installed: {name}", file=sys.stderr)
            continue
        start = time.process_time()
        said, same = measure()
        print(f"{name}: {time.process_time()-start:.1f} s", file=sys.stderr)
        if not same: changed.append(name)
        rows.append([f"**{name}.** {said}", f"{re.sub(r'[+]cu[0-9]+', '', versions)}; {date.today()}"])
    print(table(["what was measured", "versions and day"], rows))
    if changed: sys.exit(f"changed: {', '.join(changed)}")


if __name__ == "__main__": main()
