package peer

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
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
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }() // read to its end below
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	return parse(io.LimitReader(response.Body, scrapeBytes))
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
