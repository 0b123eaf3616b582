module coord

go 1.24
