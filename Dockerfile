# SPDX-License-Identifier: Apache-2.0
# graphprune in a container.
#
#   docker build -t graphprune .                                          pruning, verification, recovery, reports
#   docker build -t graphprune:train --build-arg EXTRAS=train,report .    with torch
#   docker build -t graphprune:cuda --build-arg TARGET=cuda .             networks run on an NVIDIA processor
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" graphprune solve model.onnx --flops 0.5
#   docker run --rm --user "$(id -u):$(id -g)" --gpus all -v "$PWD:/work" graphprune:cuda doctor
ARG TARGET=cpu
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS cpu
ENV RUNTIME=onnxruntime

# What onnxruntime's GPU build loads comes as Python packages; the driver comes from outside, with `--gpus all`.
FROM python:${PYTHON}-slim AS cuda
ENV RUNTIME=onnxruntime-gpu[cuda,cudnn]

FROM ${TARGET}
ARG EXTRAS=report
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY . .
# Both packages of onnxruntime own the same folder, so the one that is not meant goes before the other one comes.
RUN pip install ".[${EXTRAS}]" \
    && pip uninstall -y onnxruntime onnxruntime-gpu \
    && pip install "${RUNTIME}" \
    && rm -rf /src
# Whoever it runs as may keep there what was measured on this machine; --user is rarely one that the image knows.
RUN useradd --create-home graphprune && chmod 1777 /home/graphprune
ENV HOME=/home/graphprune
USER graphprune
WORKDIR /work
ENTRYPOINT ["graphprune"]
CMD ["--help"]
