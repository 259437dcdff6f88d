# newsfuse on a CPU, or on a CUDA GPU. Build it in the root of the repository, run it on a repository of yours:
#
#   docker build -t newsfuse .                                                      # or: --build-arg COMPUTE=cuda
#   docker run --rm -v "$PWD:/work" -e OPENAI_API_KEY newsfuse                      # dvc repro
#   docker run --rm -v "$PWD:/work" newsfuse exp run -S fusion=gate
#
# Stages run the code of the mounted repository; the image brings Python and what it depends on. All of it: docs/image.md
ARG BASE=python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7

FROM ${BASE} AS build
ARG COMPUTE=cpu
RUN case "$COMPUTE" in cpu|cuda) ;; *) echo "COMPUTE=$COMPUTE: expected cpu or cuda" >&2; exit 2 ;; esac \
    && python -m venv /opt/newsfuse
ENV PATH=/opt/newsfuse/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /source
# what weighs most and changes least comes first; every file is checked against its hash (scripts/image-lock wrote them)
COPY scripts/image/build.txt scripts/image/torch-${COMPUTE}.txt scripts/image/
# of torch's programs only one is ever run, the others are tests of its own: 130 MB
RUN pip install --no-deps --require-hashes -r scripts/image/build.txt -r scripts/image/torch-${COMPUTE}.txt \
    && rm -rf /opt/newsfuse/lib/python3*/site-packages/torch/test \
    && find /opt/newsfuse/lib/python3*/site-packages/torch/bin -type f ! -name torch_shm_manager -delete
COPY scripts/image/library.txt scripts/image/
RUN pip install --no-deps --require-hashes --no-build-isolation --use-pep517 -r scripts/image/library.txt
COPY pyproject.toml README.md LICENSE ./
COPY newsfuse newsfuse
RUN pip install --no-deps --no-build-isolation . && pip check

FROM ${BASE}
# Debian takes a version off its mirrors when the next one comes: with pinned ones the build would fail within weeks
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git tini \
    && rm -rf /var/lib/apt/lists/*
# the mounted repository belongs to somebody else, which Git refuses unless told; `dvc exp` commits, so it needs a name
RUN git config --system --add safe.directory '*' \
    && git config --system user.name newsfuse \
    && git config --system user.email newsfuse@localhost \
    && mkdir -p /etc/xdg/dvc \
    && printf '[core]\n    check_update = false\n' > /etc/xdg/dvc/config \
    && useradd --create-home --uid 1000 newsfuse \
    && install -d -o newsfuse -g newsfuse -m 0700 /home/newsfuse/.cache /home/newsfuse/.cache/dvc
COPY --from=build /opt/newsfuse /opt/newsfuse
COPY --chmod=0755 scripts/image/orderly.py /opt/newsfuse/image/dvc
COPY --chmod=0755 scripts/image/entrypoint.py /opt/newsfuse/image/entrypoint
# USER is what Python calls a user id without a line in /etc/passwd; PYTHONPATH lets `newsfuse` be the repository's, too
ENV PATH=/opt/newsfuse/image:/opt/newsfuse/bin:$PATH \
    HOME=/home/newsfuse \
    USER=newsfuse \
    DVC_NO_ANALYTICS=1 \
    DVC_SITE_CACHE_DIR=/home/newsfuse/.cache/dvc \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/work \
    PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /work
# tini hands a signal to the whole process group: to DVC and to the stage that it runs
ENTRYPOINT ["tini", "-g", "--", "/opt/newsfuse/image/entrypoint"]
CMD ["repro"]
