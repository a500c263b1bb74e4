"""Writes timm.safetensors: a small vision transformer of timm, its tokens for some images, and interpolated positions, for weights_test.cpp.

    python make_timm.py timm.safetensors          (timm 1.0.12, torch 2.11.0 gave the committed file)
"""
import sys

import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

torch.manual_seed(5)
model = VisionTransformer(img_size=12, patch_size=4, in_chans=3, embed_dim=16, depth=2, num_heads=2, num_classes=0, global_pool="token").eval()
with torch.no_grad():
    for p in model.parameters():
        p.add_(0.2 * torch.randn_like(p))
images = torch.randn(3, 3, 12, 12)
out = {"weights/" + k: v for k, v in model.state_dict().items()}
positions = model.pos_embed.detach()[:, 1:].reshape(1, 3, 3, 16).permute(0, 3, 1, 2)
larger = torch.nn.functional.interpolate(positions, size=(5, 5), mode="bicubic", align_corners=False).permute(0, 2, 3, 1).reshape(1, 25, 16)
with torch.no_grad():
    out |= {"images": images, "tokens": model.forward_features(images), "positions_5x5": torch.cat([model.pos_embed[:, :1], larger], 1)}
save_file({k: v.detach().contiguous() for k, v in out.items()}, sys.argv[1], metadata={"timm": __import__("timm").__version__})
