# Two targets: `service` (the default; its engine is the stand-in) and `snakemake` (with real Snakemake).
#
#   docker build -t snakeline .
#   docker run --rm -p 8000:8000 -v snakeline:/data snakeline
#
# The service wants API keys, because others can reach it. The first start prints one, once; the next are made by
#   docker exec CONTAINER snakeline keys create --name NAME
# SNAKELINE_AUTH=none opens it to whoever reaches the port: publish that on 127.0.0.1 alone.
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 LANG=C.UTF-8
# As PID 1 Python would leave zombies and ignore SIGTERM: tini reaps and forwards.
RUN command -v tini || { apt-get update \
    && apt-get install -y --no-install-recommends tini && rm -rf /var/lib/apt/lists/*; }

FROM base AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/snakeline
COPY requirements.lock requirements-build.lock ./
RUN /opt/build/bin/python -m pip install --require-hashes -r requirements-build.lock \
    && /opt/build/bin/python -m pip --python /opt/snakeline/bin/python install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY api api
COPY mock_snakemake mock_snakemake
COPY runner runner
COPY snakeline snakeline
COPY workflows workflows
RUN /opt/build/bin/python -m pip wheel --no-build-isolation --no-deps --wheel-dir /dist . \
    && /opt/build/bin/python -m pip --python /opt/snakeline/bin/python install --no-deps --no-index /dist/*.whl \
    && /opt/snakeline/bin/python -m compileall -q /opt/snakeline/lib

FROM base AS build-snakemake
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements-snakemake.lock /
RUN python3 -m venv /opt/snakemake \
    && /opt/snakemake/bin/python -m pip install --require-hashes -r /requirements-snakemake.lock \
    && /opt/snakemake/bin/python -m compileall -q /opt/snakemake/lib

FROM base AS runtime
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin snakeline \
    && install -d -o snakeline -g snakeline -m 0750 /data
COPY --from=build /opt/snakeline /opt/snakeline
ENV PATH=/opt/snakeline/bin:$PATH \
    SNAKELINE_HOST=0.0.0.0 \
    SNAKELINE_DATA_DIR=/data \
    SNAKELINE_ON_SHUTDOWN=stop
WORKDIR /data
VOLUME /data
EXPOSE 8000
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/opt/snakeline/bin/python", "-I", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('SNAKELINE_PORT', '8000') + '/healthz', timeout=3)"]
ENTRYPOINT ["tini", "-s", "--", "snakeline"]
CMD ["serve"]

FROM runtime AS snakemake
COPY --from=build-snakemake /opt/snakemake /opt/snakemake
ENV SNAKELINE_ENGINE=snakemake \
    SNAKELINE_SNAKEMAKE=/opt/snakemake/bin/snakemake

FROM runtime AS service
