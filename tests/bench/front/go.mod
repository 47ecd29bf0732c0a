module tierproxy.test/front

go 1.21
