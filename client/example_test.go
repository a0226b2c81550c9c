package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/cairndb/cairn/client"
)

func Example() {
	c, err := client.New(client.Config{Endpoints: []string{"127.0.0.1:7401", "127.0.0.1:7402"}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()

	shards := c.Keyspace("shards")
	if _, err := shards.Put(ctx, "shard/17", []byte("node 3")); err != nil {
		log.Fatal(err)
	}
	kv, found, err := shards.Get(ctx, "shard/17")
	if err != nil || !found {
		log.Fatal(found, err)
	}

	// Move it, if nobody has done so meanwhile.
	r, err := shards.Txn(ctx, client.Txn{
		If:   client.If(client.Unchanged(kv.Key, kv.ModRevision)),
		Then: client.Do(client.PutOp(kv.Key, []byte("node 4"))),
	})
	var ambiguous *client.Ambiguous
	switch {
	case errors.As(err, &ambiguous):
		log.Print("it may have been moved: read, and decide")
	case err != nil:
		log.Fatal(err)
	default:
		fmt.Println("moved:", r.Succeeded)
	}

	for kv, err := range shards.Scan(ctx, client.ScanOptions{Span: client.Prefix("shard/")}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s\n", kv.Key, kv.Value)
	}
}
