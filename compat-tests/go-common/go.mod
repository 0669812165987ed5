module dlog/compat/common

go 1.26.0
