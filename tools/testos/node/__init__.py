"""Kubernetes nodes on virtual machines: the test OS with containerd and a real kubelet, under a control plane."""
