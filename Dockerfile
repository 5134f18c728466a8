# Two stages: the first installs what the lock names, the second runs it as nobody in particular.
FROM python:3.13-slim AS build
WORKDIR /app
RUN python -m venv .venv
COPY requirements.lock pyproject.toml README.md ./
RUN .venv/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY api api
COPY migrations migrations
RUN .venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
    && .venv/bin/python -m compileall -q api migrations

FROM python:3.13-slim
RUN useradd --create-home --uid 10001 noidai && install -d -o noidai -m 0700 /data
WORKDIR /app
COPY --from=build /app /app
USER noidai
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 NOIDAI_DATA_DIR=/data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "-c", \
    "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health/ready', timeout=2)"]
CMD ["noidai", "serve", "--host", "0.0.0.0"]
