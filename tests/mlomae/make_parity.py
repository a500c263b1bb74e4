"""Writes parity.safetensors: the authors' MLO-MAE in double at small size, and Betty's hypergradient of it, for parity_test.cpp.

    python make_parity.py AUTHORS_REPOSITORY parity.safetensors

AUTHORS_REPOSITORY: a checkout of github.com/Alexiland/MLO-MAE; its models are imported, nothing of it is copied. The committed file was
made with commit b7cfaef, torch 2.11.0, timm 1.0.12, betty-ml 0.2.1.
"""
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

sys.path.insert(0, sys.argv[1])
import cifar_mae_model  # noqa: E402
import cifar_vit_mlo  # noqa: E402
from betty.configs import Config, EngineConfig  # noqa: E402
from betty.engine import Engine  # noqa: E402
from betty.problems import ImplicitProblem  # noqa: E402

torch.manual_seed(20261125)
torch.set_default_dtype(torch.float64)
IMAGE, PATCH, DIM, DEPTH, HEADS, DECODER, HIDDEN, CLASSES, BATCH, RATIO = 12, 4, 16, 2, 2, (8, 1, 2), 12, 3, 4, 0.5
N = (IMAGE // PATCH) ** 2


def fresh():
    torch.manual_seed(7)
    mae = cifar_mae_model.MaskedAutoencoderViT(
        img_size=IMAGE, patch_size=PATCH, embed_dim=DIM, depth=DEPTH, num_heads=HEADS, decoder_embed_dim=DECODER[0], decoder_depth=DECODER[1],
        decoder_num_heads=DECODER[2], norm_layer=lambda d: torch.nn.LayerNorm(d, eps=1e-6), norm_pix_loss=True).double()
    masker = cifar_mae_model.MLOPatchMasking(N * DIM, N, HIDDEN).double()
    head = cifar_vit_mlo.FinetuneVisionTransformer(num_classes=CLASSES, drop_rate=0.0, embed_dim=DIM).double()
    with torch.no_grad():
        for p in [*mae.parameters(), *head.parameters()]:
            p.add_(0.1 * torch.randn_like(p))
        masker.output_layer.weight.mul_(12.0)  # probabilities far enough from each other that differences do not change their order
    return mae, masker, head


def reconstruction_loss(mae, mask_fn, images):
    x = mae.patch_embed(images) + mae.pos_embed[:, 1:, :]
    visible, mask, restore, probability = mask_fn(x, RATIO)
    prediction = mae(visible, mask, restore)
    target = mae.patchify(images)
    mean, var = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
    errors = ((prediction - (target - mean) / (var + 1e-6) ** 0.5) ** 2).mean(-1) * probability
    return (errors * mask).sum() / mask.sum(), x, mask, probability, prediction


out = {}
mae, masker, head = fresh()
for name, module in (("mae", mae), ("masker", masker), ("head", head)):
    for key, p in module.named_parameters():
        out[f"{name}/{key}"] = p.detach().clone()

torch.manual_seed(11)
batches = {k: [(torch.randn(BATCH, 3, IMAGE, IMAGE), torch.randint(0, CLASSES, (BATCH,))) for _ in range(n)] for k, n in (("pretrain", 2), ("head", 1), ("masker", 1))}
for k, list_ in batches.items():
    for i, (x, y) in enumerate(list_):
        out[f"batch/{k}/{i}/images"], out[f"batch/{k}/{i}/labels"] = x.clone(), y.clone()

# 1. The model: forward, losses, every gradient.
images, labels = batches["pretrain"][0]
loss, embedded, mask, probability, prediction = reconstruction_loss(mae, masker, images)
grads = torch.autograd.grad(loss, [*mae.parameters(), *masker.parameters()])
for (key, _), g in zip([("mae/" + k, p) for k, p in mae.named_parameters()] + [("masker/" + k, p) for k, p in masker.named_parameters()], grads):
    out[f"gradient/reconstruction/{key}"] = g
latent, *_ = mae.forward_encoder(images)
logits = head(latent[:, 0])
classification = F.cross_entropy(logits, labels)
# The decoder and T have no part in it.
pairs = [("mae/" + k, p) for k, p in mae.named_parameters()] + [("head/" + k, p) for k, p in head.named_parameters()]
for (key, _), g in zip(pairs, torch.autograd.grad(classification, [p for _, p in pairs], allow_unused=True)):
    if g is not None:
        out[f"gradient/classification/{key}"] = g
out |= {"embedded": embedded.detach(), "mask": mask, "probability": probability.detach(), "prediction": prediction.detach(), "loss": loss.detach(),
        "latent": latent.detach(), "logits": logits.detach(), "classification": classification.detach()}

# 2. Betty's hypergradient of T after 2 reconstruction steps and 1 of the head.
mae, masker, head = fresh()
orders = []


def adamw(params, lr, **kw):
    o = torch.optim.AdamW(params, lr=lr, betas=(0.9, 0.95), **kw)
    o.defaults.pop("decoupled_weight_decay", None)  # Betty hands the defaults to a constructor of its own
    return o


class Pretrain(ImplicitProblem):
    def training_step(self, batch):
        loss, _, mask, *_ = reconstruction_loss(self.module, lambda x, r: self.mask(x, r), batch[0])
        orders.append(mask.clone())
        return loss


class Head(ImplicitProblem):
    def training_step(self, batch):
        tokens, *_ = self.pretrain.module.forward_encoder(batch[0])
        return F.cross_entropy(self.forward(tokens[:, 0]), batch[1])


class Mask(ImplicitProblem):
    def training_step(self, batch):
        tokens, *_ = self.pretrain.module.forward_encoder(batch[0])
        return F.cross_entropy(self.finetune(tokens[:, 0]), batch[1])


decayed = [p for p in mae.parameters() if p.ndim > 1]
rest = [p for p in mae.parameters() if p.ndim <= 1]
mask_optimizer = adamw(masker.parameters(), 1e-3)
captured = {}
step = mask_optimizer.step


def config(unroll):
    return Config(type="darts", retain_graph=True, allow_unused=True, unroll_steps=unroll)


pretrain = Pretrain(name="pretrain", module=mae, optimizer=adamw([{"params": decayed, "weight_decay": 1e-3}, {"params": rest, "weight_decay": 0.0}], 1e-3),
                    train_data_loader=batches["pretrain"], config=config(2))
finetune = Head(name="finetune", module=head, optimizer=adamw(head.parameters(), 1e-2, weight_decay=0.0), train_data_loader=batches["head"], config=config(1))
mask = Mask(name="mask", module=masker, optimizer=mask_optimizer, train_data_loader=batches["masker"], config=config(1))


def capture(problem):
    for key, p in masker.named_parameters():
        captured.setdefault(key, p.grad.detach().clone())


original = mask.optimizer_step
mask.optimizer_step = lambda *a, **k: (capture(mask), original(*a, **k))
engine = Engine(problems=[pretrain, finetune, mask], config=EngineConfig(train_iters=2, valid_step=1000),
                dependencies={"u2l": {mask: [pretrain]}, "l2u": {pretrain: [finetune, mask], finetune: [mask]}})
engine.run()
# Masks of the second step and of all differences after it.
flips = max((m != orders[1]).sum().item() for m in orders[1:])
print("reconstruction losses evaluated:", len(orders), "; positions whose mask changed between differences:", flips)
assert len(orders) == 6 and flips == 0  # two steps, two differences for each of two paths
for key, g in captured.items():
    out[f"hypergradient/{key}"] = g
print("norm of the hypergradient:", sum(g.square().sum() for g in captured.values()).sqrt().item())
save_file({k: v.contiguous() for k, v in out.items()}, sys.argv[2],
          metadata={"torch": torch.__version__, "authors": "Alexiland/MLO-MAE b7cfaefdb345ad0458db227a003065786c0e775b", "betty": "0.2.1"})
