# The gateway's image, built by docker-scripts/build.sh. Nothing in it is secret: settings come when it is run.

FROM python:3.12-slim@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea AS build

COPY requirements.txt /build/
RUN python -m venv /opt/venv \
    && /opt/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-input \
        --require-hashes --only-binary :all: --requirement /build/requirements.txt \
    && /opt/venv/bin/python -m pip uninstall --disable-pip-version-check --yes pip

WORKDIR /app
COPY *.py docker-scripts/healthcheck.py ./
COPY data/personas.json data/
COPY chat chat/
COPY common common/
COPY database database/
COPY handlers handlers/
COPY service service/
COPY sql sql/
COPY upstream upstream/
COPY web web/
# Bytecode is made here, since the running gateway writes nowhere; and the checkout may have had a strict umask.
RUN python -m compileall -q /app && chmod -R u=rwX,go=rX /app


FROM python:3.12-slim@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea

RUN python -m pip uninstall --yes --root-user-action=ignore pip \
    && groupadd --gid 10001 gateway \
    && useradd --uid 10001 --gid gateway --no-log-init --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin gateway

COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ENVIRONMENT=production

WORKDIR /app
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
EXPOSE 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=45s --retries=3 CMD ["python", "healthcheck.py"]
CMD ["python", "gateway.py"]

ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="card-chat-gateway" \
    org.opencontainers.image.description="A lightweight Starlette gateway for a credit card company's chatbot" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"
