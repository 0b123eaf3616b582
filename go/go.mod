module coord

go 1.24

require go.mongodb.org/mongo-driver/v2 v2.8.2
