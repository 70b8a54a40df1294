# The server. On a CPU, and on an NVIDIA GPU (a driver for CUDA 13, the NVIDIA container toolkit):
#   docker build -t kernelyard .
#   docker build -t kernelyard:cuda --build-arg BACKENDS="cpu_numpy cuda_cupy[cuda13]" .
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
ARG BACKENDS="cpu_numpy cpu_numba"
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY core core
COPY models models
COPY kernelyard kernelyard
COPY backends backends
RUN python -m venv /opt/kernelyard
RUN for backend in $BACKENDS; do set -- "$@" "./backends/$backend"; done \
 && /opt/kernelyard/bin/pip install --no-cache-dir ".[serve]" "$@"

FROM python:${PYTHON}-slim
RUN useradd --uid 1000 --create-home kernelyard \
 && mkdir /cache \
 && chown kernelyard /cache
COPY --from=build /opt/kernelyard /opt/kernelyard
# models of the Hugging Face hub, and compiled kernels
ENV PATH=/opt/kernelyard/bin:$PATH HF_HOME=/cache/huggingface XDG_CACHE_HOME=/cache
USER 1000
WORKDIR /home/kernelyard
VOLUME /cache
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# other machines reach it: the server demands --api-key-file FILE or --no-auth
ENTRYPOINT ["kernelyard", "serve", "--host", "0.0.0.0"]
CMD ["stories-llama2"]
