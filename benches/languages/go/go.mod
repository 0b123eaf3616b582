module coord-bench-go

go 1.24

require coord v0.0.0

require go.mongodb.org/mongo-driver/v2 v2.8.2 // indirect

replace coord => ../../../go
