# newsfuse on a CPU. Build it in the root of the repository, run it on a repository of yours:
#
#   docker build -t newsfuse .
#   docker run --rm -v "$PWD:/work" -e OPENAI_API_KEY newsfuse                      # dvc repro
#   docker run --rm -v "$PWD:/work" newsfuse dvc exp run -S fusion=gate
#
# Stages run the code of the mounted repository; the image brings Python and what it depends on.
# To own the files that are made, run as yourself: --user "$(id -u):$(id -g)".
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git \
    && rm -rf /var/lib/apt/lists/*

# torch first and by itself, the build without CUDA; then the exact versions of everything else
WORKDIR /opt/newsfuse
COPY constraints.txt ./
RUN pip install --no-cache-dir --no-deps torch -c constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu
COPY pyproject.toml README.md LICENSE ./
COPY newsfuse ./newsfuse
RUN pip install --no-cache-dir . -c constraints.txt && pip check

# the mounted repository belongs to somebody else, which Git refuses unless told
RUN git config --system --add safe.directory '*' \
    && git config --system user.name newsfuse \
    && git config --system user.email newsfuse@localhost \
    && useradd --create-home --uid 1000 newsfuse
ENV DVC_NO_ANALYTICS=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/home/newsfuse
USER newsfuse
WORKDIR /work
CMD ["dvc", "repro"]
