# etcd 3.5 as Debian builds it, with its tools. Any other image of etcd 3.4 or later does as well.
# docker build -f deploy/etcd.Dockerfile -t colonist-etcd:3.5 deploy

FROM debian:13.1-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends etcd-server etcd-client \
 && rm -rf /var/lib/apt/lists/*
USER 10001:10001
ENTRYPOINT ["etcd"]
