module github.com/cairndb/cairn/bench/allocator

go 1.26.0

require github.com/cairndb/cairn v0.0.0

require google.golang.org/protobuf v1.36.12 // indirect

replace github.com/cairndb/cairn => ../..
