"""The same outer step as `mlo-bench run mlomae-step`, as the authors' code takes it: Betty's darts at every level, PyTorch's AdamW.

    python mlomae_step.py [--repeats 11] [--threads 1] [--method betty|mae] [shapes as in mlo-bench]

Needs torch 2.11.0, betty-ml 0.2.1 (pip install --ignore-requires-python --no-deps betty-ml==0.2.1). Prints one JSON object.
"""
import argparse
import json
import resource
import statistics
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

parser = argparse.ArgumentParser()
for name, value in dict(image=32, patch=4, dim=192, depth=6, heads=3, decoder_dim=128, decoder_depth=2, decoder_heads=4, batch=64, unroll=2, repeats=11, threads=1).items():
    parser.add_argument("--" + name.replace("_", "-"), type=int, default=value)
parser.add_argument("--method", choices=["betty", "mae"], default="betty")
a = parser.parse_args()
torch.set_num_threads(a.threads)
torch.manual_seed(5)
N, VALUES = (a.image // a.patch) ** 2, 3 * a.patch**2


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.qkv, self.proj, self.heads = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), heads
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x):
        B, L, D = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(B, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, L, D))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class MAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(3, a.dim, a.patch, a.patch)
        self.cls, self.mask_token = nn.Parameter(torch.zeros(1, 1, a.dim)), nn.Parameter(torch.zeros(1, 1, a.decoder_dim))
        self.pos, self.decoder_pos = nn.Parameter(0.02 * torch.randn(1, N + 1, a.dim)), nn.Parameter(0.02 * torch.randn(1, N + 1, a.decoder_dim))
        self.blocks = nn.Sequential(*[Block(a.dim, a.heads) for _ in range(a.depth)])
        self.decoder = nn.Sequential(*[Block(a.decoder_dim, a.decoder_heads) for _ in range(a.decoder_depth)])
        self.norm, self.decoder_norm = nn.LayerNorm(a.dim, eps=1e-6), nn.LayerNorm(a.decoder_dim, eps=1e-6)
        self.decoder_embed, self.pred = nn.Linear(a.dim, a.decoder_dim), nn.Linear(a.decoder_dim, VALUES)

    def embed(self, images):
        return self.proj(images).flatten(2).transpose(1, 2) + self.pos[:, 1:]

    def encode(self, tokens):
        cls = (self.cls + self.pos[:, :1]).expand(len(tokens), -1, -1)
        return self.norm(self.blocks(torch.cat([cls, tokens], 1)))

    def forward(self, images):
        return self.encode(self.embed(images))[:, 0]

    def decode(self, latent, restore):
        x = self.decoder_embed(latent)
        x_ = torch.cat([x[:, 1:], self.mask_token.expand(len(x), N + 1 - x.shape[1], -1)], 1)
        x_ = torch.gather(x_, 1, restore.unsqueeze(-1).expand(-1, -1, a.decoder_dim))
        return self.pred(self.decoder_norm(self.decoder(torch.cat([x[:, :1], x_], 1) + self.decoder_pos)))[:, 1:]


class Masker(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(N * a.dim, 512), nn.ReLU(), nn.Linear(512, N))

    def forward(self, x):
        return self.net(x).sigmoid()


def reconstruction_loss(mae, images, probability_of):
    x = mae.embed(images)
    probability = probability_of(x)
    order = probability.argsort(1)
    restore, keep = order.argsort(1), N // 4
    visible = torch.gather(x, 1, order[:, :keep].unsqueeze(-1).expand(-1, -1, a.dim))
    mask = torch.gather(torch.cat([torch.zeros(len(x), keep), torch.ones(len(x), N - keep)], 1), 1, restore)
    p, s = a.patch, a.image // a.patch
    target = images.reshape(-1, 3, s, p, s, p).permute(0, 2, 4, 3, 5, 1).reshape(-1, N, VALUES)
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    error = ((mae.decode(mae.encode(visible), restore) - target) ** 2).mean(-1)
    return error, mask, probability


images, labels = torch.randn(a.batch, 3, a.image, a.image), torch.randint(0, 10, (a.batch,))
mae, masker, head = MAE(), Masker(), nn.Sequential(nn.LayerNorm(a.dim), nn.Dropout(0.1), nn.Linear(a.dim, 10))


def adamw(params, lr):
    optimizer = torch.optim.AdamW(params, lr=lr, betas=(0.9, 0.95))
    optimizer.defaults.pop("decoupled_weight_decay", None)  # Betty hands the defaults to a constructor of its own
    return optimizer


if a.method == "mae":
    optimizer = torch.optim.AdamW(mae.parameters(), lr=1e-4, betas=(0.9, 0.95))

    def step():
        optimizer.zero_grad()
        error, mask, _ = reconstruction_loss(mae, images, lambda x: torch.rand(len(x), N))
        ((error * mask).sum() / mask.sum()).backward()
        optimizer.step()
else:
    import logging

    from betty.configs import Config, EngineConfig
    from betty.engine import Engine
    from betty.problems import ImplicitProblem

    logging.disable(logging.INFO)

    class Pretrain(ImplicitProblem):
        def training_step(self, batch):
            error, mask, probability = reconstruction_loss(self.module, batch[0], self.mask)
            return (error * probability * mask).sum() / mask.sum()

    class Head(ImplicitProblem):
        def training_step(self, batch):
            return F.cross_entropy(self.forward(self.pretrain.module(batch[0])), batch[1])

    class Mask(ImplicitProblem):
        def training_step(self, batch):
            return F.cross_entropy(self.finetune(self.pretrain.module(batch[0])), batch[1])

    def config(unroll):
        return Config(type="darts", retain_graph=True, allow_unused=True, unroll_steps=unroll, log_step=-1)

    data = [(images, labels)]
    pretrain = Pretrain(name="pretrain", module=mae, optimizer=adamw(mae.parameters(), 1e-4), train_data_loader=data, config=config(a.unroll))
    finetune = Head(name="finetune", module=head, optimizer=adamw(head.parameters(), 1e-3), train_data_loader=data, config=config(1))
    mask = Mask(name="mask", module=masker, optimizer=adamw(masker.parameters(), 1e-4), train_data_loader=data, config=config(1))
    engine = Engine(problems=[pretrain, finetune, mask], config=EngineConfig(train_iters=10**9, valid_step=10**9),
                    dependencies={"u2l": {mask: [pretrain]}, "l2u": {pretrain: [finetune, mask], finetune: [mask]}})

    def step():
        for _ in range(a.unroll):
            engine.global_step += 1
            engine.train_step()


step()
seconds = []
for _ in range(a.repeats):
    start = time.perf_counter()
    step()
    seconds.append(time.perf_counter() - start)
print(json.dumps({"case": "mlomae-step", "method": a.method + " (PyTorch)", "threads": a.threads, "repeats": a.repeats,
                  "seconds": {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)},
                  "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "torch": torch.__version__}))
