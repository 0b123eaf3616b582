module coord-table-worker

go 1.24

require (
	coord v0.0.0
	go.mongodb.org/mongo-driver/v2 v2.8.2
)

replace coord => ../../../../go
