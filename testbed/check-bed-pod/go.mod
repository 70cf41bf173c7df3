module blobferry.io/testbed/check-bed-pod

go 1.24.0
