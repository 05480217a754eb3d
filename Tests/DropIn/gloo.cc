// Processes of one job with gloo's ibverbs transport: sums of every size, which are checked, and barriers. Prints what it has
// proved; an exception, or a wrong value, ends it with another status than 0.
#include <gloo/allreduce_ring_chunked.h>
#include <gloo/barrier_all_to_all.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/rendezvous/prefix_store.h>
#include <gloo/transport/ibverbs/device.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

int main(int argc, char **argv)
{
	if (argc != 5) {
		std::fprintf(stderr, "usage: gloo DEVICE DIRECTORY COUNT RANK\n");
		return 2;
	}
	const int count = std::atoi(argv[3]);
	const int rank = std::atoi(argv[4]);
	gloo::transport::ibverbs::attr attributes;
	attributes.name = argv[1];
	attributes.port = 1;
	attributes.index = 0;
	auto device = gloo::transport::ibverbs::CreateDevice(attributes);
	gloo::rendezvous::FileStore store(argv[2]);
	auto context = std::make_shared<gloo::rendezvous::Context>(rank, count);
	context->connectFullMesh(store, device);
	// gloo ends the process if a buffer goes whose sends have no completion yet, so all of them stay.
	std::vector<std::unique_ptr<gloo::Algorithm>> kept;
	std::vector<std::vector<float>> memory;
	memory.reserve(8);
	for (int size : {1, 100, 4096, 100000, 1000000}) {
		memory.emplace_back(size);
		std::vector<float> &values = memory.back();
		for (int index = 0; index < size; index++)
			values[index] = static_cast<float>((rank + 1) * (index % 1000));
		std::vector<float *> pointers{values.data()};
		kept.push_back(std::make_unique<gloo::AllreduceRingChunked<float>>(context, pointers, size));
		kept.back()->run();
		for (int index = 0; index < size; index++)
			if (values[index] != static_cast<float>(count * (count + 1) / 2 * (index % 1000))) {
				std::fprintf(stderr, "value %d of %d: %f\n", index, size, values[index]);
				return 1;
			}
	}
	kept.push_back(std::make_unique<gloo::BarrierAllToAll>(context));
	for (int round = 0; round < 100; round++)
		kept.back()->run();
	// No rank ends while another one still sends.
	std::vector<std::string> done;
	for (int other = 0; other < count; other++)
		done.push_back("done" + std::to_string(other));
	store.set(done[rank], {1});
	store.wait(done);
	if (rank == 0)
		std::printf("gloo: all of %d\n", count);
	std::fflush(stdout);
	std::_Exit(0);
}
