module blobferry.io/testbed/probe

go 1.24.0
