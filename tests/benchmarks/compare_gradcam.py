"""Four libraries, one formula: the Grad-CAM of a densenet, what is left behind, and what torch.compile does to hooks.

pip install captum grad-cam torchcam
python tests/benchmarks/compare_gradcam.py          # prints the tables of docs/gradcam.md, one to two minutes

The networks have random weights: what is compared here does not depend on the weights. The one that is compiled is
small, since each of eight cases compiles it anew, and torch needs minutes for each direction of a resnet18.
"""
import warnings
from contextlib import redirect_stdout
from importlib.metadata import version
from io import StringIO

warnings.simplefilter("ignore")

import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from common import machine, table
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torchcam.methods import GradCAM as TorchCAM

from fastcourse.bodies import cam_head, make_body
from fastai.vision.all import CrossEntropyLossFlat, DataLoaders, Learner, models, nn, set_seed
from fastcourse import cam

SIDE, CLASS = 128, 1


def formula(net, layer, x):
    "Selvaraju and others, ICCV 2017, by hand: slopes at the maps themselves, averaged over the places, weigh the maps."
    kept = []
    def keep(m, args, out):
        kept.append(out.detach().clone().requires_grad_())
        return kept[0].clone()  # what works in place behind the layer works on the copy
    hook = layer.register_forward_hook(keep)
    try: slopes = torch.autograd.grad(net(x)[:, CLASS].sum(), kept[0])[0]
    finally: hook.remove()
    return (slopes.mean((2, 3), keepdim=True)*kept[0]).sum(1).relu().detach()


def fastcourse(net, layer, x):
    class Classes(DataLoaders): vocab, bs, valid, device = ["0", "1"], len(x), None, x.device
    with redirect_stdout(StringIO()):  # no line of progress between the tables
        return cam.gradcam(Learner(Classes(), net, loss_func=CrossEntropyLossFlat()), x, layer).maps[:, CLASS]


def captum(net, layer, x):
    return LayerGradCam(net, layer).attribute(x, target=CLASS, relu_attributions=True)[:, 0].detach()


def grad_cam(net, layer, x):
    with GradCAM(net, [layer]) as peer: return torch.from_numpy(peer(x, [ClassifierOutputTarget(CLASS)]*len(x)))


def torchcam(net, layer, x):
    with TorchCAM(net, target_layer=layer) as peer: return peer(CLASS, net(x), normalized=False)[0].detach()


def unit(maps):
    maps = maps-maps.amin((1, 2), keepdim=True)
    return maps/(1e-7+maps.amax((1, 2), keepdim=True))


def strange(text, odd):
    "What is to be seen at once in a table is bold."
    return f"**{text}**" if odd else text


def difference(theirs, ours):
    "Largest difference of maps scaled to 0..1; those of grad-cam have the size of the picture; ours is treated alike."
    if theirs.shape != ours.shape: ours = F.interpolate(unit(ours)[:, None], theirs.shape[1:], mode="bilinear")[:, 0]
    return float((unit(theirs)-unit(ours)).abs().max())


class Small(nn.Module):
    "Four convolutions; like a resnet it ends with a ReLU in place, a mean and a Linear."
    def __init__(self):
        super().__init__()
        part = lambda i,o: nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.ReLU(inplace=True))
        self.layer1,self.layer2,self.layer3,self.layer4 = part(3, 8), part(8, 16), part(16, 16), part(16, 32)
        self.fc = nn.Linear(32, 2)

    def forward(self, x): return self.fc(self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3)))


def network(name):
    set_seed(0)
    if name == "small": return Small().eval()
    if name == "readable": return nn.Sequential(make_body(models.densenet121, False)[0], cam_head(1024, 2)).eval()
    return getattr(models, name)(num_classes=2).eval()


LIBRARIES = {f"fastcourse {version('fastcourse')}": fastcourse, f"captum {version('captum')}": captum,
             f"grad-cam {version('grad-cam')}": grad_cam, f"torchcam {version('torchcam')}": torchcam}
# the last: the densenet of cam_learner
LAYERS = {"densenet121": "features", "resnet18": "layer4", "vgg11_bn": "features", "readable": "0"}


def maps_table(x):
    rows = []
    for label, explain in LIBRARIES.items():
        row = [label]
        for name, layer in LAYERS.items():
            net = network(name)
            off = difference(explain(net, net.get_submodule(layer), x), formula(net, net.get_submodule(layer), x))
            row.append(strange(f"{off:.1e}", off > 1e-3))
        rows.append(row)
    return table(["largest difference from the formula (0 to 1)",
                  *("densenet121 of `cam_learner`, its body" if n == "readable" else f"{n}, `{o}`"
                    for n, o in LAYERS.items())], rows)


def traces_table(x):
    rows = []
    for label, explain in LIBRARIES.items():
        net = network("resnet18")
        explain(net, net.layer4, x)
        left = sum(p.grad is not None for p in net.parameters())
        hooks = sum(len(m._forward_hooks)+len(m._backward_hooks) for m in net.modules())
        rows.append([label, strange(f"{left} of {len(list(net.parameters()))}", left), hooks])
    return table(["after one map of an untouched resnet18", "parameters with a gradient", "hooks left"], rows)


def compiled(explain, how, x):
    "What becomes of the map when the network has been compiled, and has run compiled."
    torch._dynamo.reset()  # each library finds a compiler that has seen nothing yet
    net = network("small")
    wanted = formula(net, net.layer4, x)
    run = net
    if how == "torch.compile(net)": run = torch.compile(net, backend="aot_eager")
    else: net.compile(backend="aot_eager")
    with torch.no_grad(): run(x)
    try: off = difference(explain(run, net.layer4, x), wanted)
    except Exception as e: return strange(type(e).__name__, True)
    return "right" if off < 2e-3 else strange(f"another map ({off:.1e})", True)


def compile_table(x):
    hows = ("torch.compile(net)", "net.compile()")
    return table(["a compiled network of four convolutions", *(f"`{o}`" for o in hows)],
                 [[label, *(compiled(f, o, x) for o in hows)] for label, f in LIBRARIES.items()])


if __name__ == "__main__":
    set_seed(1)
    x = torch.randn(4, 3, SIDE, SIDE)
    print(machine(), end="\n\n")
    for part in (maps_table, traces_table, compile_table): print(part(x), end="\n\n", flush=True)
