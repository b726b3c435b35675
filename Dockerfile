# The worker image. It starts `latentd worker`; nothing is compiled or downloaded when it starts.
#
#   docker build -t latentd .                                        for NVIDIA GPUs whose driver knows CUDA 13.0
#   docker build -t latentd --build-arg LIBTORCH_SET=cpu .           without a GPU, a quarter of the size
#   docker build -t latentd --build-arg MODEL=painter .              with models/painter of this checkout as its model
#   docker build -t latentd --build-arg PULL=sd-1.5 --build-arg MODEL=sd-1.5 .       with one that `latentd model pull` fetches
#   docker build -t latentd-gateway --target gateway .               the gateway alone, without libtorch
#   docker build -t latentd --build-context libtorch=DIR .           with a libtorch 2.11.0 of your own: docs/deploying.md
#
# scripts/image/check builds it without a Docker engine and tries it.

FROM rust:1.95.0-slim-bookworm AS base
RUN apt-get update && apt-get install -y --no-install-recommends g++ make python3-venv && rm -rf /var/lib/apt/lists/*
# The image has the toolchain of rust-toolchain.toml, but not its components for development.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src

FROM base AS laid
COPY scripts/setup-libtorch scripts/
COPY scripts/libtorch scripts/libtorch
ARG LIBTORCH_SET=cuda
RUN scripts/setup-libtorch --${LIBTORCH_SET}

# What --build-context libtorch=DIR replaces: torch/ as its wheel has it, and nvidia/ beside it.
FROM scratch AS libtorch
COPY --from=laid /src/.libtorch /

# What libtorch offers to C++ alone; for GPUs, and without one of its own.
FROM base AS helper
COPY --from=libtorch / /opt/libtorch
COPY scripts/setup-cuda-helper scripts/
COPY scripts/libtorch scripts/libtorch
COPY native native
ENV LIBTORCH=/opt/libtorch/torch
ARG LIBTORCH_SET=cuda
RUN mkdir /helper && if [ "$LIBTORCH_SET" = cuda ]; then scripts/setup-cuda-helper --optional --kernels --out /helper; fi

FROM base AS build
COPY --from=libtorch / /opt/libtorch
ENV LIBTORCH=/opt/libtorch/torch
# Dependencies first: a change of our own code leaves their layer as it is.
COPY Cargo.toml Cargo.lock build.rs ./
RUN mkdir src && touch src/lib.rs && echo 'fn main() {}' > src/main.rs && cargo build --release --locked
COPY src src
# They are part of the program.
COPY models/manifests models/manifests
# Newer than the stand-ins, so that cargo builds them.
RUN touch src/lib.rs src/main.rs && cargo build --release --locked && strip target/release/latentd

# What runs: libraries without what only compilers read. The licences go where the libraries go.
FROM base AS installed
COPY --from=libtorch / /opt/latentd/lib
RUN cd /opt/latentd/lib \
    && find . -name '*.a' -delete \
    && find . -type d \( -name include -o -name __pycache__ \) -prune -exec rm -rf {} + \
    && find torch -mindepth 1 -maxdepth 1 ! -name lib -exec rm -rf {} + \
    && rm -rf torch/lib/libtorch_python.so torch/lib/libshm*
COPY --from=helper /helper/ /opt/latentd/lib/torch/lib/
COPY --from=build /src/target/release/latentd /opt/latentd/bin/
COPY scripts/image/healthy /opt/latentd/bin/
COPY models /opt/latentd/models
COPY LICENSE LICENSE-MIT LICENSE-APACHE /opt/latentd/

# The model that is asked for, from the hub; a gated one takes --secret id=hf_token,src=FILE.
FROM installed AS stocked
ARG PULL=
ARG MODEL=emoji
RUN --mount=type=secret,id=hf_token \
    if [ -n "$PULL" ]; then \
        export HF_TOKEN="$(cat /run/secrets/hf_token 2>/dev/null)" \
        && /opt/latentd/bin/latentd model pull "$PULL" --name "$MODEL" --models-dir /opt/latentd/models; \
    fi

FROM base AS build-gateway
COPY Cargo.toml Cargo.lock build.rs ./
RUN mkdir src && touch src/lib.rs && echo 'fn main() {}' > src/main.rs && cargo build --release --locked --no-default-features
COPY src src
COPY models/manifests models/manifests
RUN touch src/lib.rs src/main.rs && cargo build --release --locked --no-default-features && strip target/release/latentd

FROM debian:bookworm-slim AS system
# What https is checked with.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --create-home --home-dir /var/lib/latentd latentd

FROM system AS gateway
COPY --from=build-gateway /src/target/release/latentd /opt/latentd/bin/
COPY scripts/image/healthy /opt/latentd/bin/
COPY LICENSE LICENSE-MIT LICENSE-APACHE /opt/latentd/
USER latentd
# Its queue lies here, unless LATENTD_STORE says otherwise.
WORKDIR /var/lib/latentd
ENV PATH=/opt/latentd/bin:$PATH \
    HOME=/var/lib/latentd \
    LATENTD_LISTEN=0.0.0.0:8000
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["healthy", "0.0.0.0:8000"]
ENTRYPOINT ["latentd"]
CMD ["gateway"]

FROM system
COPY --from=stocked /opt/latentd /opt/latentd
USER latentd
# Results that have not arrived lie here: a volume keeps them when a container is replaced.
WORKDIR /var/lib/latentd
ARG MODEL=emoji
ENV PATH=/opt/latentd/bin:$PATH \
    HOME=/var/lib/latentd \
    LATENTD_MODEL=${MODEL} \
    LATENTD_ADMIN__LISTEN=0.0.0.0:9090 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
EXPOSE 9090
# A model of gigabytes is read from disk before a worker is ready; alive it is at once.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["healthy"]
ENTRYPOINT ["latentd"]
CMD ["worker"]
