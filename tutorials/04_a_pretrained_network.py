# %% [markdown]
# # A trained network: a grid for its pipeline
#
# The network is trained; what is left to choose is where its sampler steps. Errors of steps are measured on the
# network itself, the plan places the steps, and an export puts them into the pipeline of diffusers. Five minutes to
# read, one to three to run; needs torch, diffusers and scikit-learn.

# %%
import diffusers
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

import codesign_opt as co

# %% [markdown]
# ## A network
#
# So that nothing is downloaded, a small U-Net is trained here on 8 x 8 digits, as the training script of diffusers
# does it. Yours takes the place of this cell: `pipe = DiffusionPipeline.from_pretrained(...)`, `pipe.unet` or
# `pipe.transformer`, `pipe.scheduler`, and a few thousand of its data (latents, for a latent model) as `data`.

# %%
data = torch.as_tensor(load_digits().images, dtype=torch.float32)[:, None] / 8 - 1  # (N, 1, 8, 8)
torch.manual_seed(0)
unet = diffusers.UNet2DModel(
    sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(16, 32),
    down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"), norm_num_groups=8,
)  # fmt: skip
scheduler = diffusers.DDPMScheduler(prediction_type="v_prediction")
optimizer = torch.optim.Adam(unet.parameters(), lr=2e-3)
for _ in range(400):
    clean, noise = data[torch.randint(len(data), (128,))], torch.randn(128, 1, 8, 8)
    time = torch.randint(1000, (128,))
    noisy, target = scheduler.add_noise(clean, noise, time), scheduler.get_velocity(clean, noise, time)
    loss = (unet(noisy, time).sample - target).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
unet.eval()

# %% [markdown]
# ## What the sampler's errors are on this network
#
# `from_diffusers` makes network and scheduler a denoiser D(x; sigma) of clean data; `network` holds it against what
# the spectrum of the data allows (a wrong time, sign or scale is refused by name) and measures how errors of steps at
# each noise level reach the samples.

# %%
denoiser = co.estimate.from_diffusers(unet, scheduler)
measurement = co.estimate.Measurement(levels=8, draws=16, evaluations=4_000)
model = co.estimate.network(denoiser, data, sampler=co.DPMpp2M(), measurement=measurement)
plan = co.codesign(model, steps=8, levels=60, points=5)
print(f"{plan.number_of_steps} steps")
# | 8 steps

# %% [markdown]
# ## Against what one would take instead
#
# Squared distance to the network's own fine solution, from the same starts, draws that no plan has seen; over the
# plan's.

# %%
comparison = co.compare(model, ["edm", "cosine"], [8], draws=64)
for row in comparison.rows:
    print(f"{row.peer}: {'the least' if row.rank == 1 else 'more'}")
# | plan: the least
# | edm: more
# | cosine: more

# %% [markdown]
# The same as a figure:

# %%
comparison.plot()[0].figure.savefig("comparison.png", dpi=100)
plt.close("all")

# %% [markdown]
# ## Into the pipeline
#
# `export` sets the scheduler so that its steps are the plan's sampler's, and says what to type for this pipeline.

# %%
export = plan.export("diffusers", diffusers.DPMSolverMultistepScheduler.from_config(scheduler.config))
pipe = diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler.from_config(scheduler.config))
pipe.scheduler = export.holding(diffusers.DPMSolverMultistepScheduler.from_config(scheduler.config))
pipe.scheduler.set_timesteps(export.num_inference_steps)
print(f"{len(pipe.scheduler.timesteps)} calls of the network")
# | 8 calls of the network

# %% [markdown]
# ## Change this for your case
#
# Prompts and classes go to `from_diffusers` by name; guidance on an interval is `co.estimate.guided`. `solver="fit"`
# plans the coefficients of the steps too, from which few steps gain most (docs/solvers.md). docs/networks.md lists the
# networks, schedulers and pipelines that are known.
