# GPU: docker build -t afterglow . && docker run --gpus all -v "$PWD/runs:/app/runs" afterglow --config configs/RECIPE.yaml
# CPU: docker build -t afterglow --build-arg BASE=python:3.12-slim .
# The base needs no CUDA libraries: torch's wheels bring their own.
ARG BASE=nvidia/cuda:13.0.1-base-ubuntu24.04
FROM ${BASE}

# Bases with a Python of their own keep it.
RUN python3 -c 'import ensurepip, venv' || \
    (apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*)

# uv's cache would only make the image larger.
ARG UV_NO_CACHE=1
WORKDIR /app
COPY requirements.lock ./
RUN python3 -m venv .venv && .venv/bin/pip install --no-cache-dir uv && \
    .venv/bin/uv pip install --python .venv/bin/python --requirement requirements.lock
COPY . ./
RUN .venv/bin/uv pip install --python .venv/bin/python --no-deps --no-build-isolation --editable .

# Any user may write here (docker run --user); a name, since a bare number has none and torch asks for one.
RUN mkdir -p runs && chmod a+rwx . runs
ENV HOME=/app USER=afterglow PATH=/app/.venv/bin:$PATH
USER 1000
ENTRYPOINT ["accelerate", "launch", "--quiet", "train.py"]
