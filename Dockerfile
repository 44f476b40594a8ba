# The images of tagbus: cpu, gpu, views, triton, and sbom, the packages in cpu. docs/install.md has their sizes.
#   docker build --target cpu --tag tagbus .
#   docker build --target sbom --output type=local,dest=. .

# Any image with python3 3.11 at one path, including venv, and Debian's apt: --build-arg BASE=... for a mirror.
# The digest is the index for all platforms; each security update gives the tag a new one.
ARG BASE=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
ARG VERSION=0.1.0

# Build tools (pip, strip) stay in this stage. Only complete environments leave it.
FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
SHELL ["/bin/sh", "-euc"]
# hadolint ignore=DL3008
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends binutils >/dev/null && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY images/ images/
COPY stream/ stream/
COPY models/ models/
COPY triton_repo/ triton_repo/
COPY examples/ examples/
RUN python3 -m venv /opt/wheel && /opt/wheel/bin/pip wheel --quiet --no-deps --wheel-dir dist .

FROM build AS build-cpu
# Running it once compiles the modules that a start imports: the root is read-only at runtime.
RUN images/install images/cpu.txt /opt/tagbus && /opt/tagbus/bin/tagbus --help >/dev/null

FROM build AS build-gpu
RUN images/install images/gpu.txt /opt/tagbus && /opt/tagbus/bin/tagbus --help >/dev/null

FROM build AS build-views
RUN images/install images/views.txt /opt/tagbus && /opt/tagbus/bin/tagbus views --help >/dev/null

FROM build AS build-triton
RUN python3 -m venv /opt/triton && /opt/triton/bin/pip install --quiet --no-compile --no-deps -r images/triton.txt && \
    /opt/triton/bin/pip install --quiet --no-deps --target /opt/code dist/*.whl && \
    PYTHONPATH=/opt/code /opt/triton/bin/python images/triton.py /opt/triton /opt/tritonserver && \
    cp -r /opt/code/tagbus/triton_repo /models && /opt/triton/bin/pip uninstall --quiet --yes pip setuptools

FROM build-cpu AS build-sbom
RUN python3 images/sbom.py /opt/tagbus > /sbom.cdx.json

# Common to every image besides its environment: a user, two writable folders, and no pip.
FROM ${BASE} AS runtime
ARG VERSION
LABEL org.opencontainers.image.title="tagbus" \
      org.opencontainers.image.description="Tags content as it is published, Kafka to Kafka" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin tagbus && \
    install -d -o tagbus -g tagbus /var/lib/tagbus && \
    find / -xdev \( -path '*/site-packages/pip*' -o -path '*/site-packages/setuptools*' -o -path '*/site-packages/wheel*' \
      -o -path '*/ensurepip' -o -path '/usr/share/python-wheels' -o -path '/usr/local/bin/pip*' \) -prune -exec rm -rf {} +
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
VOLUME ["/tmp", "/var/lib/tagbus"]
WORKDIR /tmp

# A Triton server with the models of the package, for CPUs. On GPUs use NVIDIA's image, which has its own ONNX Runtime.
FROM runtime AS triton
COPY --from=build-triton /opt/triton /opt/triton
COPY --from=build-triton /opt/tritonserver /opt/tritonserver
COPY --from=build-triton /models /models
ENV PATH="/opt/tritonserver/bin:/opt/triton/bin:${PATH}" VIRTUAL_ENV=/opt/triton ORT_DISABLE_TELEMETRY=1 \
    LD_LIBRARY_PATH=/opt/tritonserver/lib:/usr/local/lib
USER 10001:10001
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s \
  CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/v2/models/encoder/ready', timeout=4)"]
ENTRYPOINT ["tritonserver"]
CMD ["--model-repository=/models", "--model-control-mode=explicit", "--load-model=encoder"]

FROM runtime AS service
ENV PATH="/opt/tagbus/bin:${PATH}" TAGBUS_HEALTH__HOST=0.0.0.0
USER 10001:10001
EXPOSE 8780
HEALTHCHECK --interval=15s --timeout=6s --start-period=60s \
  CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8780/livez', timeout=5)"]
ENTRYPOINT ["tagbus"]
CMD ["run"]

# ONNX Runtime on CUDA in the process; the driver comes from the host, by NVIDIA's container toolkit.
FROM service AS gpu
COPY --from=build-gpu /opt/tagbus /opt/tagbus
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility TAGBUS_ENCODER__PROVIDERS=cuda,cpu

# Faust and RocksDB; no client of Triton, no language model.
FROM service AS views
COPY --from=build-views /opt/tagbus /opt/tagbus
ENV TAGBUS_VIEWS__HOST=0.0.0.0 TAGBUS_VIEWS__FOLDER=/var/lib/tagbus/views
EXPOSE 8790
CMD ["views"]

FROM scratch AS sbom
COPY --from=build-sbom /sbom.cdx.json /

# Last, so that it is the default target.
FROM service AS cpu
COPY --from=build-cpu /opt/tagbus /opt/tagbus
