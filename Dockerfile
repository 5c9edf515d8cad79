# Two stages: the wheel is built in the first, the second holds the program alone.
FROM python:3.13.7-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY exporter exporter
COPY rules rules
COPY sql sql
COPY grafana grafana
RUN python -m venv /opt/quantum \
    && /opt/quantum/bin/pip install --no-cache-dir --disable-pip-version-check .

FROM python:3.13.7-slim-bookworm
LABEL org.opencontainers.image.title="quantum-exporter" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 quantum \
    && useradd --uid 10001 --gid quantum --home-dir /data --no-create-home --shell /usr/sbin/nologin quantum \
    && install --directory --owner=quantum --group=quantum --mode=0750 /data
COPY --from=build /opt/quantum /opt/quantum
ENV PATH=/opt/quantum/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9464/-/ready', timeout=4)"]
ENTRYPOINT ["quantum-exporter"]
CMD ["run", "--web.listen-address=0.0.0.0:9464"]
