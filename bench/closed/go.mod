module github.com/cairndb/cairn/bench/closed

go 1.26.0
