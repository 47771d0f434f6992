# syntax=docker/dockerfile:1
# Targets: light (dispatcher, migrate, stream, metrics, publish: no torch), worker (with the default model), demo, flower.
# Libraries and code are layers of their own: a new version of the code ships a few hundred kilobytes.

FROM python:3.11.14-slim-bookworm AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# What each image needs beside the code, in a virtual environment without pip. An empty package is installed for its list of
# requirements, and taken out again: only a change of that list makes these layers anew.
FROM base AS libraries
WORKDIR /build
RUN python -m venv --without-pip /opt/venv && mkdir sql migrations workers dynrec_store \
 && touch README.md && echo '__version__ = "0"' > dynrec_store/__init__.py
COPY pyproject.toml constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/venv install --constraint constraints.txt '.[dispatcher,kafka,metrics,tracing]' \
 && pip --python /opt/venv uninstall --yes dynrec-store

FROM libraries AS worker-libraries
# The builds of torch at this index need no CUDA; empty: those of PyPI, with CUDA and five times the size.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/venv install --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} '.[worker,tracing]' \
 && pip --python /opt/venv uninstall --yes dynrec-store

FROM libraries AS demo-libraries
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/venv install --constraint constraints.txt '.[demo]' \
 && pip --python /opt/venv uninstall --yes dynrec-store

FROM libraries AS flower-libraries
RUN --mount=type=cache,target=/root/.cache/pip pip --python /opt/venv install --constraint constraints.txt flower==2.0.1

FROM libraries AS code
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/venv install --no-deps --target /opt/code .

FROM base AS runtime
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp dynrec
# File systems are read-only but for /tmp, and no model is ever fetched.
ENV PATH=/opt/code/bin:/opt/venv/bin:$PATH PYTHONPATH=/opt/code PYTHONDONTWRITEBYTECODE=1 HOME=/tmp HF_HUB_OFFLINE=1
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["dynrec"]

FROM runtime AS light
COPY --from=libraries /opt/venv /opt/venv
COPY --from=code /opt/code /opt/code

FROM runtime AS worker
COPY --from=worker-libraries /opt/venv /opt/venv
COPY --from=code /opt/code /opt/code

FROM runtime AS demo
COPY --from=demo-libraries /opt/venv /opt/venv
COPY --from=code /opt/code /opt/code

FROM runtime AS flower
COPY --from=flower-libraries /opt/venv /opt/venv
ENTRYPOINT ["celery"]
