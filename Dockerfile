# docker build -t latentd .                                 for NVIDIA GPUs
# docker build -t latentd --build-arg LIBTORCH_SET=cpu .    without, much smaller

FROM rust:1.95.0-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ make python3-venv && rm -rf /var/lib/apt/lists/*
# The image has the toolchain of rust-toolchain.toml, but not its components for development.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src

# Layers from what changes least to what changes most: libtorch, dependencies, our own code.
COPY scripts/setup-libtorch scripts/
COPY scripts/libtorch scripts/libtorch
ARG LIBTORCH_SET=cuda
RUN scripts/setup-libtorch --${LIBTORCH_SET}

COPY .cargo .cargo
COPY Cargo.toml Cargo.lock build.rs ./
RUN mkdir src && touch src/lib.rs && echo 'fn main() {}' > src/main.rs && cargo build --release --locked

COPY src src
# They are part of the program.
COPY models/manifests models/manifests
# Newer than the stand-ins, so that cargo builds them.
RUN touch src/lib.rs src/main.rs && cargo build --release --locked

# Only libraries are needed to run; the licences go where the libraries go.
RUN mkdir -p /opt/latentd/bin /opt/latentd/lib/torch \
    && cp target/release/latentd /opt/latentd/bin/ \
    && mv .libtorch/torch/lib /opt/latentd/lib/torch/ \
    && rm -rf .libtorch/torch && mv .libtorch/* /opt/latentd/lib/ \
    && find /opt/latentd/lib/nvidia -type d -name include -prune -exec rm -rf {} + \
    && find /opt/latentd/lib -name '*.a' -delete

FROM debian:bookworm-slim
# What https is checked with.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/latentd /opt/latentd
COPY models /opt/latentd/models
COPY LICENSE LICENSE-MIT LICENSE-APACHE /opt/latentd/
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/latentd latentd
USER latentd
WORKDIR /var/lib/latentd
# The driver's compute libraries, for container runtimes that ask.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENTRYPOINT ["/opt/latentd/bin/latentd"]
CMD ["doctor"]
