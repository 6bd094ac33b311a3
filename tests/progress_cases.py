"""Every public function that can show a bar, as a user calls it: with nothing, one thing, many, and stopped midway.

`test_terminal.py` runs this file in a terminal, `test_notebook.py` in a Jupyter kernel.
"""
import dataclasses
import os
import signal
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
from fastcourse.all import *

import fastcourse.core as core  # after fastai's star import, which has a `core` of its own

NOTHING, ONE, MANY = 0, 1, 6


def pictures(folder: Path, n: int, classes: str = "ab", side: int = 40) -> Path:
    "`n` different pictures in each class folder of `folder`."
    for c in classes:
        (folder/c).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            grid = np.random.default_rng([*map(ord, c), i, len(folder.name)]).integers(0, 255, (5, 5, 3), np.uint8)
            Image.fromarray(grid).resize((side, side)).save(folder/c/f"{c}{i}.png")
    return folder


class Asks(nn.Module):
    "Its path depends on its own weights, so each start must be trained alone."
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x): return self.linear(x) if self.linear.weight.sum() < 1e9 else x


class World:
    "What the calls need, made once: a set of pictures, a classifier, a language model."
    def __init__(self, folder):
        self.root = Path(folder)
        pictures(self.root/"set"/"train", 8), pictures(self.root/"set"/"test", MANY)
        self.dls = folder_dls(self.root/"set", size=40, bs=4, num_workers=0)
        self.classifier = cam_learner(self.dls, resnet18, pretrained=False)
        self.files = sorted((self.root/"set"/"test").rglob("*.png"))
        self.maps = cams(self.classifier, self.files)
        self.boxes = pd.DataFrame([dict(file=f"{f.parent.name}/{f.name}", label=f.parent.name, xmin=0, ymin=0, xmax=20,
                                        ymax=20)
                                   for f in self.files])
        torch.manual_seed(0)
        self.speaker = lm_learner(pd.DataFrame({"text": ["one two three four five six"]*60}), bs=2, seq_len=8)
        self.fresh = iter(range(10**6))

    def made(self, dls):
        "What `cascam` calls for each network; nobody asks it to know anything."
        return cam_learner(dls, resnet18, pretrained=False)

    def sure(self, items) -> CAMs:
        "Maps of an untrained network, as if it had known every class."
        m = cams(self.classifier, items)
        return dataclasses.replace(m, logits=torch.tensor([[9.*(c == o) for c in m.vocab] for o in m.labels]))

    def folder(self, n: int) -> Path:
        "A new folder with `n` pictures in each of two classes."
        place = self.root/f"new{next(self.fresh)}"
        place.mkdir()
        return pictures(place, n)

    def damaged(self, n: int) -> Path:
        "A new folder with `n` files that are no pictures."
        place = self.folder(1)
        for i in range(n): (place/"a"/f"bad{i}.jpg").write_bytes(b"\xff\xd8\xff no picture %d" % i)
        return place

    def grade(self, n: int):
        "Grade a new folder with `n` files that are no notebooks: no kernel is started, and nobody needs pictures."
        place = self.root/f"submitted{next(self.fresh)}"
        place.mkdir()
        for i in range(n): (place/f"{i}.ipynb").write_text("{")
        with mock.patch("fastcourse.editions.lesson_pictures"): return grade(place, place.with_suffix(".csv"))

    def urls(self, n: int) -> list[str]:
        "`n` addresses at which nobody listens: the bar goes on all the same."
        return [f"http://127.0.0.1:9/{i}.png" for i in range(n)]


def calls(w: World) -> dict:
    "name -> a function of the number of items"
    mlp2 = lambda: nn.Sequential(nn.Linear(1, 1))
    x = torch.linspace(-1, 1, 8)[:, None]
    some = lambda n: w.files[:n]
    return {
        "digit_scenes": lambda n: digit_scenes(w.root/f"scenes{next(w.fresh)}", 2*n, 2*n, size=32),
        "check_images": lambda n: check_images(w.folder(n)),
        "clean_images": lambda n: clean_images(w.damaged(n)),
        "crawl_images": lambda n: crawl_images({"a": ["a"]}, w.root/f"crawl{next(w.fresh)}", max_images=max(n, 1),
                                               pause=0, engine=FolderSearch(w.folder(n))),
        "download_images": lambda n: download_images(w.urls(n), w.root/f"got{next(w.fresh)}"),
        "folder_dls": lambda n: folder_dls(pictures(w.root/f"dls{next(w.fresh)}"/"train", n).parent, size=40,
                                           num_workers=0),
        "cams": lambda n: cams(w.classifier, some(n)),
        "gradcam": lambda n: gradcam(w.classifier, some(n)),
        "cascam": lambda n: cascam(w.dls, min(n, 2), 1., w.made),
        "max_box_acc": lambda n: max_box_acc(w.maps, w.boxes),
        "grid_pointing_game": lambda n: grid_pointing_game(w.sure, w.files[::3][:n], bs=1),
        "deletion_insertion": lambda n: deletion_insertion(cams(w.classifier, some(n)), w.classifier, steps=2),
        "train_replicas": lambda n: train_replicas(mlp2, x, 2*x, nn.MSELoss(), n=3, epochs=n),
        "train_replicas_alone": lambda n: train_replicas(Asks, x, 2*x, nn.MSELoss(), n=n, epochs=2),
        "compare_replicas": lambda n: compare_replicas({"one": mlp2}, x, 2*x, nn.MSELoss(), n=2,
                                                       epochs=n, threshold=1.),
        "grade": w.grade if w else None,
        "lrnr.predict": lambda n: w.speaker.predict("one two", n_words=n),
    }


class Interrupting:
    "While active, a bar sends the interrupt of Ctrl-C to its own program after its second item."
    sent = active = False
    def __enter__(self):
        Interrupting.active, Interrupting.sent = True, False
        return self
    def __exit__(self, *exc): Interrupting.active = False


DRAWN_BY = set()   # module.function of every loop that drew a bar


def caller() -> str:
    "The function of the package that asked for the bar."
    frame = sys._getframe(3)   # this one, bar and progress are not it
    while not (Path(frame.f_code.co_filename).parent.name == "fastcourse" and frame.f_code.co_name[0] != "<"):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"


def watched(show):
    "The way to draw a bar `show`, noting who uses it, and stopping it while `Interrupting`."
    def steps(items, desc, total):
        for i, o in enumerate(show(items, desc, total)):
            yield o
            if i == 1 and Interrupting.active and not Interrupting.sent:
                Interrupting.sent = True
                os.kill(os.getpid(), signal.SIGINT)
    def bar(items, desc, total):
        DRAWN_BY.add(caller())
        return steps(items, desc, total)
    return bar


def watch():
    for k in ("_notebook_bar", "_terminal_bar"): setattr(core, k, watched(getattr(core, k)))


def run(name: str, call, n: int) -> str:
    "What became of one call: ok, refused with a sentence, or BROKEN."
    try: call(n)
    except (InputError, SearchError) as e: return f"{name} {n}: refused: {e}"
    except Exception as e: return f"{name} {n}: BROKEN {type(e).__name__}: {e}"
    return f"{name} {n}: ok"


def interrupted(name: str, call) -> str:
    "A call that is stopped in the middle ends in `KeyboardInterrupt`; the next one works."
    with Interrupting():
        try: call(MANY)
        except KeyboardInterrupt: stopped = True
        else: stopped = False
    if not Interrupting.sent: return f"{name} interrupted: drew no bar of two steps"
    if not stopped: return f"{name} interrupted: went on"
    return run(name, call, MANY).replace(f"{MANY}: ok", "interrupted: ok")


def told_of(w: World, name: str) -> list[str]:
    "What became of the function `name`: with nothing, one thing, many, and stopped in the middle."
    call = calls(w)[name]
    return [run(name, call, n) for n in (NOTHING, ONE, MANY)] + [interrupted(name, call)]


def main():
    watch()
    with tempfile.TemporaryDirectory() as d:
        w = World(d)
        told = [line for name in calls(w) for line in told_of(w, name)]
    print("\n=====", *told, *(f"drawn by {o}" for o in sorted(DRAWN_BY)), sep="\n")


if __name__ == "__main__": main()
