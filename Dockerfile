# Two targets: `service` (the default; its engine is the stand-in) and `snakemake` (with real Snakemake).
#
#   docker build -t snakeline .
#   docker run --rm -p 8000:8000 -v snakeline:/data snakeline
#
# The service wants API keys, because others can reach it. The first start prints one, once; the next are made by
#   docker exec CONTAINER snakeline keys create --name NAME
# SNAKELINE_AUTH=none opens it to whoever reaches the port: publish that on 127.0.0.1 alone.
# What is in it and what it needs: docs/image.md.

# To renew it: `docker buildx imagetools inspect python:3.13-slim-bookworm` shows the digest of today's index, for all
# platforms; put it here with the tag that names the release, run `make image-test`.
# Any other image of Debian or Ubuntu with Python 3.11 or newer: --build-arg BASE=...
ARG BASE=python:3.13.16-slim-bookworm@sha256:a1165e272e578941b84abc79e4ab38a0305cd12803a5c4247979ac7655f4d641

FROM ${BASE} AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 LANG=C.UTF-8
# As PID 1 Python would leave zombies and ignore SIGTERM: tini reaps and forwards.
RUN command -v tini || { apt-get update \
    && apt-get install -y --no-install-recommends tini && rm -rf /var/lib/apt/lists/*; }

FROM base AS tools
# A mirror of the package index, if need be: --build-arg PIP_INDEX_URL=...
ARG PIP_INDEX_URL PIP_TRUSTED_HOST
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python3 -m venv /opt/build
COPY requirements-build.lock /
# Wheels alone: nothing is compiled from C, so no compiler is needed.
RUN /opt/build/bin/python -m pip install --require-hashes --only-binary :all: -r /requirements-build.lock

# Only what the service runs on: it changes seldom, so it is a layer that is seldom sent.
FROM tools AS dependencies
ARG PIP_INDEX_URL PIP_TRUSTED_HOST
COPY requirements-otel.lock /
RUN python3 -m venv --without-pip /opt/snakeline \
    && /opt/build/bin/python -m pip --python /opt/snakeline/bin/python install \
       --require-hashes --only-binary :all: --no-compile -r /requirements-otel.lock \
    && /opt/snakeline/bin/python -m compileall -q -j 0 /opt/snakeline/lib

FROM dependencies AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY api api
COPY dashboard dashboard
COPY mock_snakemake mock_snakemake
COPY runner runner
COPY snakeline snakeline
COPY workflows workflows
RUN /opt/build/bin/python -m pip wheel --no-build-isolation --no-deps --wheel-dir /dist . \
    && /opt/build/bin/python -m pip --python /opt/snakeline/bin/python install \
       --no-deps --no-index --no-compile --root /app /dist/*.whl \
    && /opt/snakeline/bin/python -m compileall -q -j 0 -s /app -p / /app/opt/snakeline/lib

# What has no wheel becomes one with the build backend that is locked, too.
FROM tools AS build-snakemake
ARG PIP_INDEX_URL PIP_TRUSTED_HOST
COPY requirements-snakemake.lock /
RUN python3 -m venv --without-pip /opt/snakemake \
    && /opt/build/bin/python -m pip wheel --require-hashes --no-deps --no-build-isolation \
       -r /requirements-snakemake.lock --wheel-dir /wheels \
    && /opt/build/bin/python -m pip --python /opt/snakemake/bin/python install \
       --no-deps --no-index --no-compile /wheels/*.whl \
    && /opt/snakemake/bin/python -m compileall -q -j 0 /opt/snakemake/lib

FROM base AS runtime
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin snakeline \
    && install -d -o snakeline -g snakeline -m 0750 /data
COPY --from=dependencies /opt/snakeline /opt/snakeline
ENV PATH=/opt/snakeline/bin:$PATH \
    SNAKELINE_HOST=0.0.0.0 \
    SNAKELINE_DATA_DIR=/data \
    SNAKELINE_ON_SHUTDOWN=stop
WORKDIR /data
# Where a platform mounts a scratch volume it takes the folder's owner and mode from here (Fargate).
VOLUME ["/data", "/tmp"]
EXPOSE 8000
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/opt/snakeline/bin/python", "-I", "-S", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + (os.environ.get('SNAKELINE_PORT') or '8000') + '/healthz', timeout=3)"]
ENTRYPOINT ["tini", "-s", "--", "snakeline"]
# A crash of the service does not end the container, and jobs go on: snakeline/restarter.py.
CMD ["serve", "--restart"]

FROM runtime AS snakemake
COPY --from=build-snakemake /opt/snakemake /opt/snakemake
ENV SNAKELINE_ENGINE=snakemake \
    SNAKELINE_SNAKEMAKE=/opt/snakemake/bin/snakemake
COPY --from=build /app/ /
ARG VERSION=0.1.0 REVISION=unknown CREATED=unknown
LABEL org.opencontainers.image.title="Snakeline with Snakemake" \
      org.opencontainers.image.description="Run Snakemake jobs as a service: submit, watch and track them over REST" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.created=$CREATED

FROM runtime AS service
COPY --from=build /app/ /
ARG VERSION=0.1.0 REVISION=unknown CREATED=unknown
LABEL org.opencontainers.image.title="Snakeline" \
      org.opencontainers.image.description="Run Snakemake jobs as a service: submit, watch and track them over REST" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.created=$CREATED
