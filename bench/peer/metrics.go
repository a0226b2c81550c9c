package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	scrapeTimeout = 5 * time.Second
	scrapeBytes   = 4 << 20 // etcd's whole page is below 200 kB
)

// scrape reads a page of Prometheus's text format: the value of each series that has no labels.
func scrape(ctx context.Context, url string) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	var values map[string]float64
	err := get(ctx, url, func(page io.Reader) (err error) {
		values, err = parse(io.LimitReader(page, scrapeBytes))
		return err
	})
	return values, err
}

// download writes what is at a URL into a file.
func download(ctx context.Context, url, path string) error {
	return get(ctx, url, func(page io.Reader) error {
		file, err := os.Create(path)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, page)
		return errors.Join(err, file.Close())
	})
}

// get hands the page at a URL to read.
func get(ctx context.Context, url string, read func(io.Reader) error) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // what was wanted of it was read
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return read(response.Body)
}

func parse(page io.Reader) (map[string]float64, error) {
	values := map[string]float64{}
	lines := bufio.NewScanner(page)
	for lines.Scan() {
		name, rest, found := strings.Cut(lines.Text(), " ")
		if !found || name == "#" || strings.Contains(name, "{") {
			continue
		}
		value, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
		if err != nil {
			return nil, fmt.Errorf("metric %s: %w", name, err)
		}
		values[name] = value
	}
	return values, lines.Err()
}
